#include "file/replace.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mode.h"
#include "file/reply.h"

static bool same_state(const struct stat *a, const struct stat *b) {
    return same_file(a, b) && a->st_size == b->st_size && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
           a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

/* Returns how many bytes were written: fewer than `size` when it failed, with errno. */
static size_t write_all(int fd, const uint8_t *data, size_t size) {
    size_t done = 0;
    while (done < size) {
        ssize_t count = write(fd, data + done, size - done);
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) break;
        done += (size_t)count;
    }
    return done;
}

mode_t target_mode(const struct target *t, const struct change *c) {
    return c->mode >= 0 ? (mode_t)c->mode : t->exists ? t->info.st_mode & 07777 : mode_of_new();
}

/* --- as a whole -------------------------------------------------------------------------------------------------- */

static void random_name(char name[32]) {
    uint64_t number = 0;
    (void)!getrandom(&number, sizeof number, 0);
    snprintf(name, 32, ".taskcell-%016llx", (unsigned long long)number);
}

/* A file without a name vanishes whatever kills us. File systems that have none get a name that says whose it is. */
static int make_file(const struct target *t, const char *name, bool *named) {
    int fd = openat(t->folder, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
    *named = fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == ENOENT || errno == EINVAL);
    if (*named) fd = openat(t->folder, name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    *named = *named && fd >= 0;
    return fd;
}

static bool give_name(const struct target *t, int fd, const char *name) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return !linkat(AT_FDCWD, path, t->folder, name, AT_SYMLINK_FOLLOW);
}

static bool unchanged(const struct target *t) {
    struct stat now;
    bool there = !fstatat(t->folder, t->name, &now, AT_SYMLINK_NOFOLLOW);
    return there ? t->exists && same_state(&now, &t->info) : !t->exists;
}

enum outcome { DONE, CHANGED, FAILED, FOREIGN };

/* Puts a new file in the place of the old one. FAILED leaves the reason in errno; FOREIGN: the group cannot be kept. */
static enum outcome put_new_file(const struct target *t, const struct change *c) {
    char name[32];
    bool named, changed = false, foreign = false;
    random_name(name);
    int fd = make_file(t, name, &named);
    struct stat made;
    bool done = fd >= 0 && !fstat(fd, &made);
    if (done && t->exists && made.st_gid != t->info.st_gid)
        done = !(foreign = fchown(fd, (uid_t)-1, t->info.st_gid) != 0);
    done = done && write_all(fd, c->data, c->size) == c->size && !fchmod(fd, target_mode(t, c));
    if (done && !named) named = done = give_name(t, fd, name);
    if (done) done = !(changed = !unchanged(t));
    done = done && !renameat(t->folder, name, t->folder, t->name);
    int error = errno;
    if (!done && named) unlinkat(t->folder, name, 0);
    if (fd >= 0) close(fd);
    errno = error;
    return done ? DONE : changed ? CHANGED : foreign ? FOREIGN : FAILED;
}

/* --- in place ---------------------------------------------------------------------------------------------------- */

/* Reserves room before the first byte is written, so that a full disk leaves the old content whole. */
static bool reserve(int fd, off_t size) {
    return !size || !fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, size) || (errno != ENOSPC && errno != EDQUOT);
}

/* Takes a part of what was to be appended off again, unless another program has appended more. */
static bool take_back(int fd, off_t before, size_t done) {
    struct stat now;
    return !fstat(fd, &now) && now.st_size == before + (off_t)done && !ftruncate(fd, before);
}

static int write_in_place(const struct target *t, const struct change *c) {
    int fd = openat(t->folder, t->name, O_WRONLY | O_NONBLOCK | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC |
                    (c->append ? O_APPEND : 0));
    if (fd < 0) return refuse_system("");
    struct stat now;
    off_t size = (off_t)c->size + (c->append ? t->info.st_size : 0);
    size_t done;
    int told = -1;
    /* Adding to the end takes nothing from what another program adds meanwhile. */
    bool same = !fstat(fd, &now) && (c->append ? same_file(&now, &t->info) : same_state(&now, &t->info));
    if (!same) told = refuse(REFUSED_CHANGED, 0, "");
    else if (!reserve(fd, size)) told = refuse_system("");
    else if (c->mode >= 0 && fchmod(fd, (mode_t)c->mode)) told = refuse_system("its mode");
    else if ((done = write_all(fd, c->data, c->size)) < c->size) {
        int error = errno;
        bool whole = c->append && take_back(fd, now.st_size, done);
        errno = error;
        told = whole ? refuse_system("") : refuse(REFUSED_TORN, 0, "");
    } else if (!c->append && ftruncate(fd, size)) told = refuse(REFUSED_TORN, 0, "");
    /* The kernel takes set-user-ID and set-group-ID away at a write; whoever owns the file may give them back. */
    else if (c->mode < 0 && t->info.st_mode & (S_ISUID | S_ISGID)) (void)!fchmod(fd, target_mode(t, c));
    close(fd);
    return told;
}

/* Whether a program has the file open for writing: then no lease on reading it is given. A program that opens it in
   the moment that we hold the lease waits for its end, and we hear of it by a signal. */
static bool is_being_written(int fd) {
    signal(SIGIO, SIG_IGN);
    if (fcntl(fd, F_SETLEASE, F_RDLCK)) return errno == EAGAIN;
    fcntl(fd, F_SETLEASE, F_UNLCK);
    return false;
}

static enum place must_stay(const struct target *t) {
    if (t->info.st_nlink > 1) return PLACE_LINKS;
    if (t->info.st_uid != geteuid()) return PLACE_OWNER;
    return t->file >= 0 && is_being_written(t->file) ? PLACE_OPEN : PLACE_NOT;
}

int target_change(struct target *t, const struct change *c, enum place *place) {
    *place = t->exists && !c->append ? must_stay(t) : PLACE_NOT;
    if (t->exists && (c->append || *place)) return write_in_place(t, c);
    enum outcome outcome = put_new_file(t, c);
    if (outcome == DONE) return -1;
    if (outcome == CHANGED) return refuse(REFUSED_CHANGED, 0, "");
    if (t->exists) {
        bool closed = errno == EACCES || errno == EPERM || errno == EROFS;
        *place = outcome == FOREIGN ? PLACE_OWNER : closed ? PLACE_FOLDER : errno == EBUSY ? PLACE_MOUNT : PLACE_NOT;
        if (*place) return write_in_place(t, c);
    }
    return refuse_system("");
}
