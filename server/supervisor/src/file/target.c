#include "file/target.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/clock.h"
#include "file/reply.h"

enum {
    LINKS_MAX = 40,   /* the kernel's own limit */
    LOCK_TURN = 1000, /* us between two attempts; a change takes less than a millisecond */
};
static const int64_t LOCK_LIMIT = 5000000; /* us; many changes that wait for each other take less */

/* Replaces a path that is a link by its target, as open(2) would; returns false with errno. */
static bool follow(char path[PATH_MAX]) {
    for (int links = 0; links < LINKS_MAX; links++) {
        char to[PATH_MAX], joined[2 * PATH_MAX];
        ssize_t size = readlink(path, to, sizeof to - 1);
        if (size < 0) return true; /* it is not a link, or the fault shows when it is used */
        to[size] = 0;
        const char *slash = strrchr(path, '/');
        int folder = *to == '/' || !slash ? 0 : (int)(slash - path) + 1;
        int length = snprintf(joined, sizeof joined, "%.*s%s", folder, path, to);
        errno = ENAMETOOLONG;
        if (length >= PATH_MAX) return false;
        memcpy(path, joined, (size_t)length + 1);
    }
    errno = ELOOP;
    return false;
}

/* Makes the folders of a path that are missing. */
static bool make_all(char *folder) {
    for (char *at = folder + 1;; at++) {
        char kept = *at;
        if (kept && kept != '/') continue;
        *at = 0;
        bool made = !mkdir(folder, 0777) || errno == EEXIST;
        *at = kept;
        if (!made || !kept) return made;
    }
}

static bool open_folder(char *path, bool make, struct target *t) {
    char *slash = strrchr(path, '/'), root[] = "/", here[] = ".";
    const char *name = slash ? slash + 1 : path;
    if (!*name) name = here;
    errno = ENAMETOOLONG;
    if (strlen(name) >= sizeof t->name) return false;
    memcpy(t->name, name, strlen(name) + 1);
    if (slash) *slash = 0;
    char *folder = !slash ? here : *path ? path : root;
    t->folder = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (t->folder < 0 && errno == ENOENT && make && make_all(folder))
        t->folder = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return t->folder >= 0;
}

bool same_file(const struct stat *a, const struct stat *b) {
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* Locks what stands there, so that the second of two changes sees the result of the first. Returns 1 when done, 0 to
   try again, and -1 when the refusal has been written. */
static int try_lock(struct target *t) {
    struct stat now;
    t->exists = !fstatat(t->folder, t->name, &t->info, AT_SYMLINK_NOFOLLOW);
    if (!t->exists) return errno == ENOENT ? 1 : (refuse_system(""), -1);
    if (S_ISLNK(t->info.st_mode)) return refuse(REFUSED_CHANGED, 0, ""), -1;
    if (!S_ISREG(t->info.st_mode)) return refuse_mode(t->info.st_mode), -1;
    /* Without this check, a rename would replace a file that its user has made read-only. */
    if (faccessat(t->folder, t->name, W_OK, 0)) return refuse_system(""), -1;
    t->file = openat(t->folder, t->name, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC);
    if (t->file < 0) return errno == EACCES ? 1 : errno == ENOENT ? 0 : (refuse_system(""), -1);
    bool locked = !flock(t->file, LOCK_EX | LOCK_NB);
    /* Another change may have put a new file in its place while we waited: then we must lock that one. */
    if (locked && !fstatat(t->folder, t->name, &now, AT_SYMLINK_NOFOLLOW) && !fstat(t->file, &t->info) &&
        same_file(&now, &t->info))
        return 1;
    close(t->file);
    t->file = -1;
    return 0;
}

bool target_find(const char *path, bool make_folders, struct target *t) {
    char whole[PATH_MAX];
    *t = (struct target){.folder = -1, .file = -1};
    errno = ENAMETOOLONG;
    if (strlen(path) >= sizeof whole) return refuse_system(""), false;
    memcpy(whole, path, strlen(path) + 1);
    if (!follow(whole) || !open_folder(whole, make_folders, t)) return refuse_system(""), false;
    int64_t end = clock_now() + LOCK_LIMIT;
    for (int way; (way = try_lock(t)) <= 0;) {
        if (way < 0) return false;
        if (clock_now() > end) return refuse(REFUSED_LOCKED, 0, ""), false;
        usleep(LOCK_TURN);
    }
    return true;
}

void target_close(struct target *t) {
    if (t->file >= 0) close(t->file);
    if (t->folder >= 0) close(t->folder);
}
