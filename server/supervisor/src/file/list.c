#include "file/list.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "file/reply.h"

enum {
    PATTERNS_MAX = 32,
    PARTS_MAX = 62,       /* parts of one pattern: a set of them fits 64 bits */
    DEPTH_MAX = 100,      /* folders below one another: each holds a descriptor */
    VISITS_MAX = 200000,  /* names that are read: some tenths of a second, some MB */
    BYTES_MAX = 2 << 20,  /* bytes of the reply */
    LINK_MAX_SHOWN = 1024,
    MORE_MATCH = 1,       /* flags of the reply */
    NOT_ALL_SEEN = 2,
    CLOSED_FOLDERS = 4,
    IS_FILE = 8,
};
static const int64_t LIST_LIMIT = 5000000; /* us */

/* A pattern, split at its slashes. The state of a match is a set of parts, one bit each: the parts that the next
   name may match. The bit after the last part means that the path matches. */
struct pattern {
    char *parts[PARTS_MAX];
    unsigned count;
};

struct listing {
    struct pattern patterns[PATTERNS_MAX];
    unsigned pattern_count;
    uint64_t most, found, visits;
    int64_t end;
    uint8_t flags;
    char path[PATH_MAX]; /* of the current entry, relative to the folder */
    struct buffer entries;
};

static bool parse_pattern(char *text, struct pattern *p) {
    for (char *part; (part = strsep(&text, "/"));) {
        if (!*part) continue;
        if (p->count == PARTS_MAX) return false;
        p->parts[p->count++] = part;
    }
    return p->count > 0;
}

static bool is_any_depth(const char *part) { return !strcmp(part, "**"); }

/* `**` may match no folder at all, so the part after it is possible too. */
static uint64_t closed_over(const struct pattern *p, uint64_t states) {
    for (unsigned i = 0; i < p->count; i++)
        if (states >> i & 1 && is_any_depth(p->parts[i])) states |= (uint64_t)1 << (i + 1);
    return states;
}

static uint64_t step(const struct pattern *p, uint64_t states, const char *name) {
    uint64_t next = 0;
    for (unsigned i = 0; i < p->count; i++) {
        if (!(states >> i & 1)) continue;
        if (is_any_depth(p->parts[i])) next |= (uint64_t)1 << i;
        else if (!fnmatch(p->parts[i], name, 0)) next |= (uint64_t)1 << (i + 1);
    }
    return closed_over(p, next);
}

static char type_of(mode_t mode) { return S_ISREG(mode) ? 'f' : S_ISDIR(mode) ? 'd' : S_ISLNK(mode) ? 'l' : 'o'; }

static void add_entry(struct listing *l, int folder, const char *name, const char *path) {
    struct stat info;
    if (fstatat(folder, name, &info, AT_SYMLINK_NOFOLLOW)) return; /* it is gone by now */
    if (l->found == l->most || l->entries.size > BYTES_MAX) {
        l->flags |= MORE_MATCH;
        return;
    }
    char target[LINK_MAX_SHOWN];
    ssize_t size = S_ISLNK(info.st_mode) ? readlinkat(folder, name, target, sizeof target) : 0;
    l->found++;
    put_u8(&l->entries, (uint8_t)type_of(info.st_mode));
    put_u64(&l->entries, (uint64_t)info.st_size);
    put_u64(&l->entries, (uint64_t)info.st_mtim.tv_sec);
    put_str(&l->entries, path, strlen(path));
    put_str(&l->entries, target, size > 0 ? (size_t)size : 0);
}

static bool is_over(struct listing *l) {
    if (l->visits > VISITS_MAX || clock_now() > l->end) l->flags |= NOT_ALL_SEEN;
    return l->flags & (MORE_MATCH | NOT_ALL_SEEN);
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* Returns the sorted names in an open folder, whose bytes `names` keeps, or NULL when memory runs out. */
static char **sorted_names(struct listing *l, DIR *folder, struct buffer *names, size_t *count) {
    *count = 0;
    for (struct dirent *entry; (entry = readdir(folder));) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        if (++l->visits > VISITS_MAX) break;
        put_bytes(names, entry->d_name, strlen(entry->d_name) + 1);
        ++*count;
    }
    char **sorted = names->failed ? NULL : malloc((*count + 1) * sizeof *sorted);
    char *at = (char *)names->data;
    for (size_t i = 0; sorted && i < *count; i++, at += strlen(at) + 1) sorted[i] = at;
    if (sorted) qsort(sorted, *count, sizeof *sorted, by_name);
    return sorted;
}

static bool is_folder(int folder, const char *name) {
    struct stat info;
    return !fstatat(folder, name, &info, AT_SYMLINK_NOFOLLOW) && S_ISDIR(info.st_mode);
}

static void walk(struct listing *l, int fd, size_t length, unsigned depth, const uint64_t *states);

/* Takes one name of a folder: adds an entry if it matches, and descends if something below it may match. */
static void visit(struct listing *l, int folder, const char *name, size_t length, unsigned depth,
                  const uint64_t *states) {
    uint64_t next[PATTERNS_MAX];
    bool matches = false, below = false;
    size_t size = strlen(name);
    if (length + size + 2 > sizeof l->path) {
        l->flags |= NOT_ALL_SEEN;
        return;
    }
    memcpy(l->path + length, name, size + 1);
    for (unsigned i = 0; i < l->pattern_count; i++) {
        uint64_t end = (uint64_t)1 << l->patterns[i].count;
        next[i] = step(&l->patterns[i], states[i], name);
        matches = matches || next[i] & end;
        below = below || next[i] & (end - 1);
    }
    if (matches) add_entry(l, folder, name, l->path);
    if (!below || !is_folder(folder, name)) return;
    if (depth == DEPTH_MAX) {
        l->flags |= NOT_ALL_SEEN;
        return;
    }
    /* No link is followed: a loop has no end, and the target of a link is listed where it really is. */
    int fd = openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) l->flags |= CLOSED_FOLDERS;
    if (fd < 0) return;
    l->path[length + size] = '/';
    walk(l, fd, length + size + 1, depth + 1, next);
}

/* Lists an open folder, and closes it. */
static void walk(struct listing *l, int fd, size_t length, unsigned depth, const uint64_t *states) {
    struct buffer names = {0};
    size_t count;
    DIR *folder = fdopendir(fd);
    char **sorted = folder ? sorted_names(l, folder, &names, &count) : NULL;
    if (!sorted) l->flags |= NOT_ALL_SEEN;
    for (size_t i = 0; sorted && i < count && !is_over(l); i++) visit(l, fd, sorted[i], length, depth, states);
    free(sorted);
    buffer_free(&names);
    if (folder) closedir(folder);
    else close(fd);
}

static int send_listing(struct listing *l) {
    struct buffer reply = {0};
    put_u8(&reply, REPLY_DONE);
    put_u8(&reply, l->flags);
    put_u32(&reply, (uint32_t)l->found);
    put_bytes(&reply, l->entries.data, l->entries.size);
    reply.failed = reply.failed || l->entries.failed;
    return reply_send(&reply);
}

int file_list(int argc, char **argv) {
    static struct listing l;
    uint64_t states[PATTERNS_MAX];
    /* With UTF-8, `?` matches a character and not a byte. */
    setlocale(LC_CTYPE, "C.UTF-8");
    l.most = strtoull(argv[0], NULL, 10);
    l.end = clock_now() + LIST_LIMIT;
    for (int i = 2; i < argc; i++, l.pattern_count++) {
        struct pattern *p = &l.patterns[l.pattern_count];
        if (l.pattern_count == PATTERNS_MAX || !parse_pattern(argv[i], p)) return refuse(REFUSED_SIZE, 0, "");
        states[l.pattern_count] = closed_over(p, 1);
    }
    int fd = open(argv[1], O_RDONLY | O_DIRECTORY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 && errno == ENOTDIR) {
        l.flags = IS_FILE;
        struct stat info;
        if (fstatat(AT_FDCWD, argv[1], &info, AT_SYMLINK_NOFOLLOW)) return refuse_system("");
        add_entry(&l, AT_FDCWD, argv[1], argv[1]);
        return send_listing(&l);
    }
    if (fd < 0) return refuse_system("");
    walk(&l, fd, 0, 0, states);
    return send_listing(&l);
}
