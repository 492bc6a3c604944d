#include "transfer/unpack.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/mode.h"
#include "file/reply.h"
#include "transfer/beneath.h"
#include "transfer/tar.h"

enum {
    PAX_MAX = 1 << 20,    /* bytes of an extended header, or of a long name */
    HOLE = 4096,          /* zeros of this length need no room */
    LOCKED_MAX = 1 << 16, /* folders that their owner may not write in, which is set at the end */
    PART_MAX = 1 << 20,   /* pieces of a sparse file */
};

/* What is being unpacked. */
struct unpacking {
    int root; /* the folder that it goes to */
    struct entry e;
    unsigned known;
    char problem[PATH_MAX + 128];
    int error; /* errno, where the file system has refused; 0: the archive is at fault */
    uint64_t count, left; /* entries; bytes of this one that were not read yet */
    struct locked {
        char *path;
        mode_t mode;
    } *locked;
    size_t locked_count;
};

static bool fault(struct unpacking *u, const char *why) {
    u->error = 0;
    snprintf(u->problem, sizeof u->problem, "%.*s%s%s", PATH_MAX, u->e.name, *u->e.name ? ": " : "", why);
    return false;
}

static bool fail(struct unpacking *u) {
    int why = errno;
    if (why == EXDEV) return fault(u, "it leads out of the workspace");
    snprintf(u->problem, sizeof u->problem, "%.*s", PATH_MAX, u->e.name);
    u->error = why;
    return false;
}

static bool read_exactly(struct unpacking *u, void *to, size_t size) {
    for (size_t at = 0; at < size;) {
        ssize_t count = read(STDIN_FILENO, (char *)to + at, size - at);
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) return fault(u, "the archive breaks off");
        at += (size_t)count;
    }
    return true;
}

static bool skip(struct unpacking *u, uint64_t size) {
    static char away[TAR_BLOCK * 64];
    for (; size; size -= size < sizeof away ? size : sizeof away)
        if (!read_exactly(u, away, size < sizeof away ? (size_t)size : sizeof away)) return false;
    return true;
}

static uint64_t padding(uint64_t size) { return (TAR_BLOCK - size % TAR_BLOCK) % TAR_BLOCK; }

/* The name as it is used: relative, without `.` and doubled slashes; `..` and absolute names are refused. */
static bool tidy(struct unpacking *u, char *name) {
    char *to = name;
    if (*name == '/') return fault(u, "an absolute name; names must be relative");
    for (char *at = name; *at;) {
        size_t size = strcspn(at, "/");
        bool leads_up = size == 2 && at[0] == '.' && at[1] == '.';
        if (leads_up) return fault(u, "a name with '..'; names must lead into the folder");
        if (size && !(size == 1 && *at == '.')) {
            if (to != name) *to++ = '/';
            memmove(to, at, size);
            to += size;
        }
        at += size + (at[size] == '/');
    }
    *to = 0;
    return true;
}

static bool is_zero(const char *data, size_t size) { return !*data && !memcmp(data, data + 1, size - 1); }

/* Writes `size` bytes from standard input at the file's position, and leaves holes for zeros. */
static bool fill(struct unpacking *u, int fd, uint64_t size) {
    static char data[64 * HOLE];
    while (size) {
        size_t more = size < sizeof data ? (size_t)size : sizeof data;
        if (!read_exactly(u, data, more)) return false;
        u->left -= more;
        for (size_t at = 0; at < more; at += HOLE) {
            size_t piece = more - at < HOLE ? more - at : HOLE;
            bool hole = piece == HOLE && is_zero(data + at, piece);
            if (hole ? lseek(fd, HOLE, SEEK_CUR) < 0 : write(fd, data + at, piece) != (ssize_t)piece) return fail(u);
        }
        size -= more;
    }
    return true;
}

static bool read_number(struct unpacking *u, uint64_t *value, uint64_t *taken) {
    *value = 0;
    for (char c; ; *value = *value * 10 + (uint64_t)(c - '0')) {
        if (!u->left || !read_exactly(u, &c, 1)) return fault(u, "the map of a sparse file is damaged");
        u->left--;
        ++*taken;
        if (c == '\n') return true;
        if (c < '0' || c > '9' || *value >> 59) return fault(u, "the map of a sparse file is damaged");
    }
}

static bool fill_sparse(struct unpacking *u, int fd) {
    uint64_t count, taken = 0;
    if (!read_number(u, &count, &taken)) return false;
    struct { uint64_t at, size; } *parts = count && count <= PART_MAX ? calloc(count, sizeof *parts) : NULL;
    if (!parts) return fault(u, "the map of a sparse file is damaged");
    bool good = true;
    for (uint64_t i = 0; good && i < count; i++)
        good = read_number(u, &parts[i].at, &taken) && read_number(u, &parts[i].size, &taken);
    uint64_t rest = padding(taken);
    if (good && (rest > u->left || !skip(u, rest))) good = fault(u, "the map of a sparse file is damaged");
    if (good) u->left -= rest;
    for (uint64_t i = 0; good && i < count; i++) {
        bool fits = parts[i].size <= u->left && parts[i].at <= INT64_MAX - parts[i].size;
        if (!fits) good = fault(u, "the map of a sparse file is damaged");
        else if (lseek(fd, (off_t)parts[i].at, SEEK_SET) < 0) good = fail(u);
        else good = fill(u, fd, parts[i].size);
    }
    free(parts);
    return good;
}

/* Removes what stands in the place of a file or link; a folder stays, and is an error. */
static bool make_place(struct unpacking *u, int folder, const char *name) {
    return !unlinkat(folder, name, 0) || errno == ENOENT || fail(u);
}

static bool put_file(struct unpacking *u, int folder, const char *name) {
    const struct entry *e = &u->e;
    u->left = e->size;
    if (!make_place(u, folder, name)) return false;
    int fd = openat(folder, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) return fail(u);
    bool good = e->sparse ? fill_sparse(u, fd) : fill(u, fd, e->size);
    const struct timespec times[2] = {{.tv_nsec = UTIME_NOW}, {.tv_sec = e->mtime}};
    if (good && ftruncate(fd, (off_t)(e->sparse ? e->real_size : e->size))) good = fail(u);
    if (good && (fchmod(fd, mode_shared(e->mode & 0777, false)) || futimens(fd, times))) good = fail(u);
    close(fd);
    if (!good) unlinkat(folder, name, 0); /* a part of a file is not the file */
    return good && skip(u, u->left + padding(e->size));
}

static bool put_folder(struct unpacking *u, int folder, const char *name) {
    mode_t mode = mode_shared(u->e.mode & 0777, true);
    struct stat info;
    if (mkdirat(folder, name, mode | 0700)) {
        if (errno != EEXIST) return fail(u);
        int there = open_beneath(u->root, u->e.name, O_PATH | O_DIRECTORY);
        if (there < 0) return fail(u);
        close(there);
        if (fstatat(folder, name, &info, AT_SYMLINK_NOFOLLOW) || !S_ISDIR(info.st_mode)) return true;
    }
    if ((mode & 0700) == 0700) return !fchmodat(folder, name, mode, 0) || errno == EPERM || fail(u);
    if (u->locked_count == LOCKED_MAX) return fault(u, "too many folders that may not be written");
    struct locked *more = realloc(u->locked, (u->locked_count + 1) * sizeof *more);
    if (more) u->locked = more;
    char *path = more ? strdup(u->e.name) : NULL;
    if (!path) return fail(u);
    u->locked[u->locked_count++] = (struct locked){path, mode};
    return true;
}

static bool put_hard_link(struct unpacking *u, int folder, const char *name) {
    const char *last;
    if (!tidy(u, u->e.link)) return false;
    int from = open_parent(u->root, u->e.link, false, &last);
    if (from < 0) return fail(u);
    bool good = make_place(u, folder, name) && (!linkat(from, last, folder, name, 0) || fail(u));
    close(from);
    return good;
}

static bool put_entry(struct unpacking *u) {
    struct entry *e = &u->e;
    const char *name;
    if (!tidy(u, e->name)) return false;
    bool special = e->type == '3' || e->type == '4' || e->type == '6';
    if (special) return fault(u, "a device or FIFO; only files, folders and links are taken");
    if (e->type == 'S') return fault(u, "a sparse file of an old format; pack it with --format=pax");
    if (!*e->name) return e->type == '5' || fault(u, "an entry without a name"); /* the folder itself */
    int folder = open_parent(u->root, e->name, true, &name);
    if (folder < 0) return fail(u);
    bool good;
    if (e->type == '5') good = put_folder(u, folder, name);
    else if (e->type == '2') good = make_place(u, folder, name) && (!symlinkat(e->link, folder, name) || fail(u));
    else if (e->type == '1') good = put_hard_link(u, folder, name);
    else if (!e->type || e->type == '0' || e->type == '7') good = put_file(u, folder, name);
    else good = fault(u, "an entry of a kind that is not known");
    close(folder);
    u->count++;
    bool has_data = !e->type || e->type == '0' || e->type == '7';
    return good && (has_data || skip(u, e->size + padding(e->size)));
}

/* Takes an extended header, or one of GNU's long names. */
static bool take_extension(struct unpacking *u, char type) {
    static char data[PAX_MAX + 1];
    uint64_t size = u->e.size;
    if (size > PAX_MAX) return fault(u, "an extended header of it is too long");
    if (!read_exactly(u, data, (size_t)size) || !skip(u, padding(size))) return false;
    data[size] = 0;
    if (type == 'x') {
        const char *wrong = tar_parse_pax(data, (size_t)size, &u->e, &u->known);
        return !wrong || fault(u, wrong);
    }
    if (type == 'g') return true;
    if (strlen(data) >= PATH_MAX) return fault(u, "a name in it is too long");
    strcpy(type == 'L' ? u->e.name : u->e.link, data);
    u->known |= type == 'L' ? KNOWN_NAME : KNOWN_LINK;
    return true;
}

/* Returns true at the archive's end, and when there is more; `end` says which. */
static bool take_block(struct unpacking *u, bool *end) {
    struct tar_header h;
    struct entry own;
    if (!read_exactly(u, &h, sizeof h)) return false;
    *end = is_zero((char *)&h, sizeof h);
    if (*end) return true;
    bool extends = h.type == 'x' || h.type == 'g' || h.type == 'L' || h.type == 'K';
    own = u->e;
    const char *wrong = tar_parse(&h, extends ? &own : &u->e, extends ? 0 : u->known);
    if (wrong) return fault(u, wrong);
    if (!extends) {
        bool put = put_entry(u);
        if (put) u->e = (struct entry){0};
        if (put) u->known = 0;
        return put;
    }
    uint64_t kept = u->e.size;
    u->e.size = own.size;
    bool taken = take_extension(u, h.type);
    if (taken && !(u->known & KNOWN_SIZE)) u->e.size = kept;
    return taken;
}

static void finish(struct unpacking *u, bool has_end) {
    static char away[TAR_BLOCK * 64];
    while (has_end && read(STDIN_FILENO, away, sizeof away) > 0) {} /* blocks of zeros */
    while (u->locked_count--) {
        const struct locked *l = &u->locked[u->locked_count];
        int folder = open_beneath(u->root, l->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
        if (folder >= 0) {
            fchmod(folder, l->mode);
            close(folder);
        }
    }
}

static int refuse_unpacking(const struct unpacking *u) {
    errno = u->error;
    if (u->error) return refuse_system(u->problem);
    return refuse((enum refusal)REFUSED_ARCHIVE, u->count, u->problem);
}

int transfer_unpack(const char *path, bool has_end) {
    static struct unpacking u;
    const char *name;
    int own = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    u.root = open_beneath(own, path, O_PATH | O_DIRECTORY);
    if (u.root < 0 && errno == ENOENT) {
        int parent = open_parent(own, path, true, &name);
        if (parent >= 0 && !mkdirat(parent, name, 0777)) u.root = open_beneath(own, path, O_PATH | O_DIRECTORY);
    }
    if (u.root < 0) return refuse_path("");
    for (bool end = false; !end;)
        if (!take_block(&u, &end)) return refuse_unpacking(&u);
    finish(&u, has_end);
    struct buffer reply = {0};
    put_u8(&reply, REPLY_DONE);
    put_u64(&reply, u.count);
    return reply_send(&reply);
}
