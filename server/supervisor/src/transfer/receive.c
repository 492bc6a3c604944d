#include "transfer/receive.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/mode.h"
#include "file/reply.h"
#include "transfer/beneath.h"
#include "transfer/outlet.h"

enum { CHUNK = 256 << 10 };

/* The file that is being written, under a name of its own until it is whole. */
static char draft[64];
static int draft_folder = -1;

static void give_up(int number) {
    if (draft_folder >= 0) unlinkat(draft_folder, draft, 0);
    _exit(128 + number);
}

static int done(uint64_t count) {
    struct buffer reply = {0};
    put_u8(&reply, REPLY_DONE);
    put_u64(&reply, count);
    return reply_send(&reply);
}

static bool write_all(int fd, const char *data, size_t size) {
    for (size_t at = 0; at < size;) {
        ssize_t count = write(fd, data + at, size - at);
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) return false;
        at += (size_t)count;
    }
    return true;
}

/* Copies standard input to its end, which a stream of our own does not have. Returns false with errno; EBADMSG:
   it had another size than `expected`. */
static bool take_input(int fd, const char *expected, uint64_t *total) {
    static char chunk[CHUNK];
    uint64_t most = *expected == '-' ? UINT64_MAX : strtoull(expected, NULL, 10);
    for (*total = 0;;) {
        ssize_t count = read(STDIN_FILENO, chunk, sizeof chunk);
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) return false;
        errno = EBADMSG;
        if (count == 0) return *expected == '-' || *total == most;
        if ((uint64_t)count > most - *total) return false;
        if (!write_all(fd, chunk, (size_t)count)) return false;
        *total += (uint64_t)count;
        if (*total == most && outlet_is_free()) return true;
    }
}

/* The permissions of what stands there, if it is a file; 0644 for a new one. Returns -1 when it is something else. */
static int mode_of(int folder, const char *name, const char *wanted) {
    struct stat info;
    bool exists = !fstatat(folder, name, &info, AT_SYMLINK_NOFOLLOW);
    errno = EISDIR;
    if (exists && !S_ISREG(info.st_mode) && !S_ISLNK(info.st_mode)) return -1;
    if (*wanted != '-') return (int)(strtoul(wanted, NULL, 8) & 0777);
    return exists && S_ISREG(info.st_mode) ? (int)(info.st_mode & 0777) : (int)mode_of_new();
}

static int write_draft(int folder, const char *name, char **argv) {
    int mode = mode_of(folder, name, argv[1]);
    if (mode < 0) return refuse(REFUSED_FOLDER, 0, "");
    uint64_t number = 0;
    (void)!getrandom(&number, sizeof number, 0);
    snprintf(draft, sizeof draft, ".taskcell-%016llx", (unsigned long long)number);
    /* A signal between the two steps would leave the draft. */
    sigset_t term;
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_BLOCK, &term, NULL);
    int fd = openat(folder, draft, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd >= 0) draft_folder = folder;
    sigprocmask(SIG_UNBLOCK, &term, NULL);
    if (fd < 0) return refuse_system("");
    uint64_t total;
    bool whole = take_input(fd, argv[0], &total) && !fchmod(fd, (mode_t)mode) && !renameat(folder, draft, folder, name);
    int why = errno;
    if (!whole) unlinkat(folder, draft, 0);
    draft_folder = -1;
    errno = why;
    if (whole) return done(total);
    return why == EBADMSG ? refuse(REFUSED_INPUT, total, "") : refuse_system("");
}

/* Where a link leads that stands at `path`, from the root; `path` itself where there is none, or it leads nowhere.
   Returns NULL with errno for one that leads out. */
static const char *followed(int root, const char *path) {
    static char to[PATH_MAX], own[PATH_MAX];
    int fd = open_beneath(root, path, O_PATH);
    if (fd < 0) return errno == ENOENT ? path : NULL;
    char name[64];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(name, to, sizeof to - 1);
    snprintf(name, sizeof name, "/proc/self/fd/%d", root);
    ssize_t above = readlink(name, own, sizeof own - 1);
    close(fd);
    if (size <= 0 || above <= 0) return NULL;
    to[size] = 0;
    if (above == 1) above = 0; /* the root is "/" */
    return size > above && !memcmp(to, own, (size_t)above) ? to + above + 1 : path;
}

int transfer_receive(char **argv) {
    const char *name;
    signal(SIGTERM, give_up);
    int root = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    const char *path = root < 0 ? NULL : followed(root, argv[2]);
    int folder = path ? open_parent(root, path, true, &name) : -1;
    if (folder < 0) return refuse_path("");
    if (!*name || !strcmp(name, ".")) return refuse(REFUSED_FOLDER, 0, "");
    return write_draft(folder, name, argv);
}
