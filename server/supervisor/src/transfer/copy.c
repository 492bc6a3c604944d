#include "transfer/copy.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "transfer/clone.h"

enum {
    WORKERS = 2,        /* a second processor almost doubles the speed; memory takes no more */
    DEPTH_MAX = 2000,   /* each folder on the way takes three descriptors, of which an engine allows 20,000 at least */
    TURNS = 8,          /* attempts to copy what something exchanges meanwhile */
};

/* What one of the workers copies: all folders, and of the rest what falls to it. */
struct copying {
    int target;   /* its number among the folders that get a copy */
    ino_t number; /* of the worker */
    int root;     /* the folder that everything goes to */
    char path[PATH_MAX];
    size_t length;
    struct name {
        ino_t file;
        char *path;
    } *names; /* the first names of files that have several, by their numbers; a power of two */
    size_t name_count, name_room;
};

/* Writes one line: a folder's number, and how its copy went. */
static bool say(int target, const char *how) {
    char words[PATH_MAX + 512];
    int size = snprintf(words, sizeof words, "%d %s", target, how);
    for (int i = 0; i < size; i++)
        if ((unsigned char)words[i] < ' ') words[i] = '?';
    words[size++] = '\n';
    return write(STDOUT_FILENO, words, (size_t)size) == size;
}

static bool fail(const struct copying *c, const char *name) {
    char how[PATH_MAX + 400];
    int why = errno;
    snprintf(how, sizeof how, "%.*s%s%s: %s", (int)c->length, c->path, c->length ? "/" : "", name, strerror(why));
    say(c->target, how);
    return false;
}

/* --- files with several names --- */

static struct name *place_of(const struct copying *c, ino_t file) {
    size_t at = (size_t)(file * 0x9E3779B97F4A7C15U >> 20) & (c->name_room - 1);
    while (c->names[at].path && c->names[at].file != file) at = (at + 1) & (c->name_room - 1);
    return c->names + at;
}

static const char *first_name(const struct copying *c, ino_t file) {
    return c->name_room ? place_of(c, file)->path : NULL;
}

/* Where there is no memory, or the path is too long, the file's other names become files. */
static void remember(struct copying *c, ino_t file, const char *name) {
    char path[PATH_MAX];
    int length = snprintf(path, sizeof path, "%.*s%s%s", (int)c->length, c->path, c->length ? "/" : "", name);
    if (length >= PATH_MAX) return;
    if (c->name_count * 2 >= c->name_room) {
        struct copying wider = {.name_room = c->name_room ? c->name_room * 2 : 1024};
        wider.names = calloc(wider.name_room, sizeof *wider.names);
        if (!wider.names) return;
        for (size_t i = 0; i < c->name_room; i++)
            if (c->names[i].path) *place_of(&wider, c->names[i].file) = c->names[i];
        free(c->names);
        c->names = wider.names;
        c->name_room = wider.name_room;
    }
    struct name new = {file, strdup(path)};
    if (!new.path) return;
    *place_of(c, file) = new;
    c->name_count++;
}

/* --- what is not a folder --- */

static bool copy_file(struct copying *c, int from, int to, const char *name) {
    struct stat info;
    int source = openat(from, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (source < 0) return false;
    int target = openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    bool good = target >= 0 && !fstat(source, &info);
    if (good && !S_ISREG(info.st_mode)) {
        errno = ESTALE;
        good = false;
    }
    good = good && clone_content(source, target, info.st_size) && clone_finish(source, target, &info);
    int why = errno;
    if (good && info.st_nlink > 1) remember(c, info.st_ino, name);
    if (!good && target >= 0) unlinkat(to, name, 0);
    if (target >= 0) close(target);
    close(source);
    errno = why;
    return good;
}

static bool copy_link(int from, int to, const char *name, const struct stat *info) {
    char target[PATH_MAX];
    ssize_t size = readlinkat(from, name, target, sizeof target - 1);
    if (size < 0) return false;
    target[size] = 0;
    return !symlinkat(target, to, name) && clone_finish_name(to, name, info);
}

/* Copies what is not a folder. A socket is left out: nothing that is copied listens at it. */
static bool copy_other(struct copying *c, int from, int to, const char *name, const struct stat *info) {
    if (info->st_ino % WORKERS != c->number) return true;
    const char *first = info->st_nlink > 1 ? first_name(c, info->st_ino) : NULL;
    if (first && !linkat(c->root, first, to, name, 0)) return true;
    if (S_ISREG(info->st_mode)) return copy_file(c, from, to, name);
    if (S_ISLNK(info->st_mode)) return copy_link(from, to, name, info);
    if (S_ISFIFO(info->st_mode)) return !mkfifoat(to, name, 0600) && clone_finish_name(to, name, info);
    return true;
}

/* --- folders --- */

static int open_folder(int folder, const char *name) {
    return openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

typedef bool visitor(struct copying *c, int from, int to, const char *name, int depth);

/* Calls `visit` for everything in the folder `from`, which has a copy `to`. */
static bool visit_all(struct copying *c, int from, int to, int depth, visitor *visit) {
    int own = openat(from, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = own < 0 ? NULL : fdopendir(own);
    if (!folder || depth > DEPTH_MAX) {
        if (folder) errno = ELOOP;
        fail(c, ".");
        if (folder) closedir(folder);
        return false;
    }
    bool good = true;
    for (struct dirent *d; good && (d = readdir(folder));)
        if (strcmp(d->d_name, ".") && strcmp(d->d_name, "..")) good = visit(c, from, to, d->d_name, depth);
    closedir(folder);
    return good;
}

/* Visits all in a folder of the folder `from`; returns true where it is gone. */
static bool visit_folder(struct copying *c, int from, int to, const char *name, int depth, visitor *visit) {
    int inner_from = open_folder(from, name), inner_to = inner_from < 0 ? -1 : open_folder(to, name);
    bool good = errno == ENOENT || errno == ENOTDIR || errno == ELOOP;
    if (inner_to >= 0) {
        size_t length = c->length, size = strlen(name), slash = length > 0;
        if (length + slash + size < sizeof c->path) {
            if (slash) c->path[length] = '/';
            memcpy(c->path + length + slash, name, size);
            c->length += slash + size;
        } else c->length = sizeof c->path; /* no name below it can be remembered */
        good = visit_all(c, inner_from, inner_to, depth + 1, visit);
        c->length = length;
        close(inner_to);
    } else if (!good) fail(c, name);
    if (inner_from >= 0) close(inner_from);
    return good;
}

static bool copy_entry(struct copying *c, int from, int to, const char *name, int depth) {
    struct stat info;
    for (int turn = 0; turn < TURNS; turn++) {
        if (fstatat(from, name, &info, AT_SYMLINK_NOFOLLOW)) return errno == ENOENT || fail(c, name);
        if (S_ISDIR(info.st_mode)) {
            if (mkdirat(to, name, 0700) && errno != EEXIST) return fail(c, name);
            return visit_folder(c, from, to, name, depth, copy_entry);
        }
        if (copy_other(c, from, to, name, &info)) return true;
        /* Something has exchanged it since we looked. */
        if (errno != ENOENT && errno != ELOOP && errno != ESTALE && errno != EINVAL) break;
    }
    return fail(c, name);
}

/* Gives the folders in a folder what they are beside their content, once nothing is written in them any more. */
static bool finish_entry(struct copying *c, int from, int to, const char *name, int depth) {
    struct stat info;
    if (fstatat(from, name, &info, AT_SYMLINK_NOFOLLOW) || !S_ISDIR(info.st_mode)) return true;
    if (!visit_folder(c, from, to, name, depth, finish_entry)) return false;
    int inner_from = open_folder(from, name), inner_to = inner_from < 0 ? -1 : open_folder(to, name);
    bool good = inner_to < 0 || clone_finish(inner_from, inner_to, &info) || fail(c, name);
    if (inner_from >= 0) close(inner_from);
    if (inner_to >= 0) close(inner_to);
    return good;
}

/* Removes everything in a folder: what an environment's setup has made in a new workspace is in the files that come
   instead already, or is not to be there. */
static bool empty(struct copying *c, int folder, int depth) {
    int own = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (own >= 0 && depth) fchmod(own, S_IRWXU); /* Go's modules are in folders that cannot be written */
    DIR *entries = own < 0 ? NULL : fdopendir(own);
    bool good = entries && depth <= DEPTH_MAX;
    for (struct dirent *d; good && (d = readdir(entries));) {
        if (!strcmp(d->d_name, ".") || !strcmp(d->d_name, "..") || !unlinkat(folder, d->d_name, 0)) continue;
        int inner = open_folder(folder, d->d_name);
        good = inner < 0 ? errno == ENOENT || fail(c, d->d_name) : empty(c, inner, depth + 1);
        if (inner >= 0) {
            close(inner);
            good = good && (!unlinkat(folder, d->d_name, AT_REMOVEDIR) || errno == ENOENT || fail(c, d->d_name));
        }
    }
    if (entries) closedir(entries);
    return good;
}

static bool copy_share(int target, ino_t number, int from, int to) {
    struct copying c = {.target = target, .number = number, .root = to};
    return visit_all(&c, from, to, 0, copy_entry);
}

static bool copy_all(int target, int from, int to) {
    struct copying c = {.target = target, .root = to};
    int status = 0;
    if (!empty(&c, to, 0)) return fail(&c, ".");
    pid_t other = fork();
    if (!other) _exit(!copy_share(target, 1, from, to));
    bool good = copy_share(target, 0, from, to);
    if (other < 0) good = good && copy_share(target, 1, from, to);
    else good = waitpid(other, &status, 0) == other && status == 0 && good;
    struct stat info;
    if (!good || !visit_all(&c, from, to, 0, finish_entry)) return false;
    return (!fstat(from, &info) && clone_finish(from, to, &info)) || fail(&c, ".");
}

int transfer_copy(int count, char **words) {
    int from = open_folder(AT_FDCWD, words[0]);
    bool good = true;
    umask(0);
    for (int i = 1; i < count; i++) {
        struct copying c = {.target = i - 1};
        int to = from < 0 ? -1 : open_folder(AT_FDCWD, words[i]);
        bool copied = to < 0 ? fail(&c, words[from < 0 ? 0 : i]) : copy_all(i - 1, from, to) && say(i - 1, "ok");
        if (to >= 0) close(to);
        good = good && copied;
    }
    return !good;
}

int transfer_empty(char **words) {
    struct copying c = {0};
    int folder = open_folder(AT_FDCWD, words[0]);
    bool good = (folder >= 0 && empty(&c, folder, 0)) || fail(&c, words[0]);
    if (good) good = say(0, "ok");
    if (folder >= 0) close(folder);
    return !good;
}
