#include "transfer/pack.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "transfer/outlet.h"
#include "transfer/tar.h"

enum {
    DEPTH_MAX = 200,       /* each folder on the way takes a descriptor */
    LINKS_ROOM = 1 << 14,  /* files with several names that are remembered; further ones are packed as files */
    PARTS_MAX = 4096,      /* pieces of a sparse file; one with more is packed as it reads */
};

/* The first names of files that have several. */
static struct {
    dev_t device;
    ino_t number;
    char *name;
} links[LINKS_ROOM];

static const char *first_name(const struct stat *info, const char *name) {
    if (info->st_nlink < 2) return NULL;
    size_t at = (size_t)(info->st_ino * 2654435761U + info->st_dev) % LINKS_ROOM;
    for (int turn = 0; turn < 64; turn++, at = (at + 1) % LINKS_ROOM) {
        if (!links[at].name) {
            links[at].device = info->st_dev;
            links[at].number = info->st_ino;
            links[at].name = strdup(name);
            return NULL;
        }
        if (links[at].number == info->st_ino && links[at].device == info->st_dev) return links[at].name;
    }
    return NULL;
}

/* Says why the archive ends here: a reader of ours shows it, others find the end missing. */
static bool break_off(const char *name) {
    char words[PATH_MAX + 128], record[PATH_MAX + 160];
    snprintf(words, sizeof words, "taskcell: %s: %s", name, strerror(errno));
    size_t size = tar_record(record, 0, "comment", words);
    struct entry e = {.type = 'g', .mode = 0644, .size = size, .name = "PaxHeaders/end"};
    if (tar_write(&e) && outlet_write(record, size)) outlet_zeros((TAR_BLOCK - size % TAR_BLOCK) % TAR_BLOCK);
    outlet_flush();
    return false;
}

struct parts {
    uint64_t at[PARTS_MAX], size[PARTS_MAX], total;
    int count;
};

/* Finds the data between holes; returns false for a file that has none, or too many. */
static bool find_parts(int fd, const struct stat *info, struct parts *p) {
    p->count = 0;
    p->total = 0;
    if ((uint64_t)info->st_blocks * 512 >= (uint64_t)info->st_size) return false;
    for (off_t at = 0; at < info->st_size;) {
        off_t data = lseek(fd, at, SEEK_DATA);
        if (data < 0 && errno != ENXIO) return false;
        if (data < 0 || data >= info->st_size) break;
        off_t hole = lseek(fd, data, SEEK_HOLE);
        if (hole < 0 || p->count == PARTS_MAX - 1) return false;
        if (hole > info->st_size) hole = info->st_size;
        p->at[p->count] = (uint64_t)data;
        p->size[p->count++] = (uint64_t)(hole - data);
        p->total += (uint64_t)(hole - data);
        at = hole;
    }
    p->at[p->count] = (uint64_t)info->st_size; /* the file's end, as GNU tar writes it */
    p->size[p->count++] = 0;
    return p->total < (uint64_t)info->st_size;
}

static bool pad(uint64_t size) { return outlet_zeros((TAR_BLOCK - size % TAR_BLOCK) % TAR_BLOCK); }

static bool pack_sparse(int fd, struct entry *e, const struct parts *p) {
    static char map[PARTS_MAX * 42];
    size_t size = (size_t)sprintf(map, "%d\n", p->count);
    for (int i = 0; i < p->count; i++)
        size += (size_t)sprintf(map + size, "%lu\n%lu\n", (unsigned long)p->at[i], (unsigned long)p->size[i]);
    size_t whole = (size + TAR_BLOCK - 1) / TAR_BLOCK * TAR_BLOCK;
    e->sparse = true;
    e->real_size = e->size;
    e->size = whole + p->total;
    if (!tar_write(e) || !outlet_write(map, size) || !outlet_zeros(whole - size)) return false;
    for (int i = 0; i < p->count; i++)
        if (!outlet_file(fd, p->at[i], p->size[i])) return false;
    return pad(e->size);
}

static bool pack_file(int fd, const struct stat *info, struct entry *e) {
    static struct parts parts;
    const char *first = first_name(info, e->name);
    if (first) {
        e->type = '1';
        e->size = 0;
        strcpy(e->link, first);
        return tar_write(e);
    }
    e->type = '0';
    if (find_parts(fd, info, &parts)) return pack_sparse(fd, e, &parts);
    return tar_write(e) && outlet_file(fd, 0, e->size) && pad(e->size);
}

static bool pack_folder(int fd, const char *path, int depth);

static bool pack_link(int folder, const char *name, struct entry *e) {
    ssize_t size = readlinkat(folder, name, e->link, sizeof e->link - 1);
    if (size < 0) return errno == ENOENT || break_off(e->name);
    e->link[size] = 0;
    e->type = '2';
    e->size = 0;
    return tar_write(e);
}

static struct entry entry_of(const struct stat *info, const char *path) {
    struct entry e = {.mode = info->st_mode, .mtime = info->st_mtime};
    if (S_ISREG(info->st_mode)) e.size = (uint64_t)info->st_size;
    if (S_ISDIR(info->st_mode)) e.type = '5';
    snprintf(e.name, sizeof e.name, "%s", path);
    return e;
}

static bool pack_entry(int folder, const char *name, const char *path, int depth) {
    struct stat info;
    if (fstatat(folder, name, &info, AT_SYMLINK_NOFOLLOW)) return errno == ENOENT || break_off(path);
    struct entry e = entry_of(&info, path);
    if (S_ISLNK(info.st_mode)) return pack_link(folder, name, &e);
    if (!S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode)) return true; /* sockets, FIFOs: as tar leaves them out */
    int fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0) return errno == ENOENT || break_off(path);
    bool packed = S_ISDIR(info.st_mode) ? tar_write(&e) && pack_folder(fd, path, depth + 1) : pack_file(fd, &info, &e);
    close(fd);
    return packed;
}

/* Takes the descriptor's place in the folder, and leaves it open. */
static bool pack_folder(int fd, const char *path, int depth) {
    errno = ELOOP;
    if (depth > DEPTH_MAX) return break_off(path);
    int own = dup(fd);
    DIR *folder = own < 0 ? NULL : fdopendir(own);
    if (!folder) return break_off(path);
    bool packed = true;
    for (struct dirent *d; packed && (d = readdir(folder));) {
        char inner[PATH_MAX];
        if (!strcmp(d->d_name, ".") || !strcmp(d->d_name, "..")) continue;
        errno = ENAMETOOLONG;
        if (snprintf(inner, sizeof inner, "%s/%s", path, d->d_name) >= (int)sizeof inner) packed = break_off(path);
        else packed = pack_entry(fd, d->d_name, inner, depth);
    }
    closedir(folder);
    return packed;
}

bool pack(int fd, const char *path) {
    struct stat info;
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    if (fstat(fd, &info)) return break_off(name);
    struct entry e = entry_of(&info, name);
    if (S_ISREG(info.st_mode)) return pack_file(fd, &info, &e) && tar_end();
    return tar_write(&e) && pack_folder(fd, name, 0) && tar_end();
}
