#include "own.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "start/user.h"

enum { DEPTH_MAX = 512 }; /* folders in each other, each with a descriptor: a path of the kernel's has hardly more */

static const int FOLDER = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;

struct gift {
    const struct identity *who;
    dev_t device; /* mounts below the folder are not the image's */
    unsigned long count;
    int depth;
};

static bool give(struct gift *gift, int folder, const char *name);

static bool give_below(struct gift *gift, int fd) {
    DIR *entries = fdopendir(dup(fd));
    bool done = entries != NULL;
    for (struct dirent *entry; done && (errno = 0, entry = readdir(entries));)
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..")) done = give(gift, fd, entry->d_name);
    int why = errno;
    if (entries) closedir(entries);
    errno = why;
    return done && !why;
}

/* Root has no right to enter another user's private folder, but it may make that its own first. */
static int enter(int folder, const char *name) {
    int fd = openat(folder, name, FOLDER);
    if (fd >= 0 || errno != EACCES || fchownat(folder, name, 0, 0, AT_SYMLINK_NOFOLLOW)) return fd;
    return openat(folder, name, FOLDER);
}

/* The folder itself comes last: while it is root's, root may work in it. */
static bool give_folder(struct gift *gift, int folder, const char *name) {
    struct stat info;
    int fd = enter(folder, name);
    if (fd < 0) return false;
    bool done = fstat(fd, &info) == 0;
    if (done && info.st_dev == gift->device) {
        errno = ENAMETOOLONG;
        done = gift->depth++ < DEPTH_MAX && give_below(gift, fd) && fchown(fd, gift->who->uid, gift->who->gid) == 0;
        gift->depth--;
        gift->count++;
    }
    int why = errno;
    close(fd);
    errno = why;
    return done;
}

/* Of anything else than a folder, a link is given itself, and never what it leads to. */
static bool give(struct gift *gift, int folder, const char *name) {
    struct stat info;
    if (fstatat(folder, name, &info, AT_SYMLINK_NOFOLLOW)) return false;
    if (S_ISDIR(info.st_mode)) return give_folder(gift, folder, name);
    bool is_given = info.st_uid == gift->who->uid && info.st_gid == gift->who->gid;
    /* A file that is written in an overlay is copied as a whole, so one that has its owner is left alone. */
    if (is_given || S_ISBLK(info.st_mode) || S_ISCHR(info.st_mode)) return true;
    gift->count++;
    return fchownat(folder, name, gift->who->uid, gift->who->gid, AT_SYMLINK_NOFOLLOW) == 0;
}

/* Opens the folder that `path` is in, through no link. `path` becomes its last part. */
static int open_above(char **path) {
    int folder = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    for (char *part, *rest = *path; folder >= 0 && (part = strsep(&rest, "/"));) {
        if (!*part) continue;
        *path = part;
        if (!rest || !*rest) return folder;
        int next = openat(folder, part, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        int why = errno;
        close(folder);
        errno = why;
        folder = next;
    }
    return folder;
}

static bool give_path(struct gift *gift, char *path) {
    struct stat info;
    int above = open_above(&path);
    bool done = above >= 0 && fstatat(above, path, &info, AT_SYMLINK_NOFOLLOW) == 0;
    errno = done && !S_ISDIR(info.st_mode) ? ENOTDIR : errno;
    done = done && S_ISDIR(info.st_mode);
    gift->device = info.st_dev;
    done = done && give_folder(gift, above, path);
    int why = errno;
    if (above >= 0) close(above);
    errno = why;
    return done;
}

int own_run(int count, char **words) {
    struct identity who;
    if (count < 3) return 2;
    alarm((unsigned)strtoul(words[0], NULL, 10));
    const char *fault = user_resolve(words[1], &who);
    if (!fault && !who.uid) fault = "the user is root";
    if (fault) return printf("%s: %s\n", words[1], fault), fflush(stdout), 1;
    struct gift gift = {.who = &who};
    for (int i = 2; i < count; i++) {
        char *path = strdup(words[i]);
        bool done = path && give_path(&gift, path);
        int why = errno;
        free(path);
        if (!done) return printf("%s: %s\n", words[i], strerror(why)), fflush(stdout), 1;
    }
    printf("%lu\n", gift.count);
    return fflush(stdout) ? 1 : 0;
}
