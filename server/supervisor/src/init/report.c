#include "init/report.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/fd.h"
#include "init/watch.h"

enum {
    CHUNK = 64 << 10,
    PIPE_SIZE = 256 << 10, /* most reports fit as a whole; the kernel may say no */
};

/* Any user may enter: the files' names are known to whom they concern, and the folder cannot be listed. */
static const mode_t FOLDER = 0711, FIFO = 0622, PROLOGUE = 0444;

static bool name_file(const struct supervisor *s, const struct process *p, const char *suffix, char *path,
                      size_t size) {
    int length = snprintf(path, size, "%s/%u%s", s->reports, p->number, suffix);
    return length > 0 && (size_t)length < size;
}

void report_prepare(struct supervisor *s, const char *socket) {
    const char *slash = strrchr(socket, '/');
    int length = slash ? (int)(slash - socket) : 0;
    int size = snprintf(s->reports, sizeof s->reports, "%.*s.state", length, socket);
    struct stat info;
    mode_t before = umask(0);
    bool made = length && size < (int)sizeof s->reports && (mkdir(s->reports, FOLDER) == 0 || errno == EEXIST) &&
                lstat(s->reports, &info) == 0 && S_ISDIR(info.st_mode) && info.st_uid == geteuid();
    umask(before);
    if (!made) *s->reports = 0;
}

/* What an earlier supervisor left under the name goes. */
static bool write_prologue(const char *path, struct slice text) {
    unlink(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, PROLOGUE);
    if (fd < 0) return false;
    bool written = write(fd, text.data, text.size) == (ssize_t)text.size;
    close(fd);
    return written;
}

/* We hold its writing end too: without a writer it would be at its end, again and again. */
static int open_fifo(const char *path) {
    unlink(path);
    if (mkfifo(path, FIFO)) return -1;
    int fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
    if (fd >= 0) fcntl(fd, F_SETPIPE_SZ, PIPE_SIZE);
    return fd;
}

bool report_open(struct supervisor *s, struct process *p, struct slice prologue) {
    char path[REPORTS_PATH + 32];
    errno = ENOTDIR;
    if (!*s->reports || !name_file(s, p, "", path, sizeof path)) return false;
    mode_t before = umask(0);
    p->state_fd = open_fifo(path);
    bool made = p->state_fd >= 0;
    if (made && prologue.size) made = name_file(s, p, ".bash", path, sizeof path) && write_prologue(path, prologue);
    umask(before);
    return made && watch_add(s, p->state_fd, WATCH_STATE, p->number, EPOLLIN);
}

/* What it holds at this moment, and no more: a descendant may go on writing for ever. */
void report_read(struct process *p) {
    static uint8_t chunk[CHUNK];
    int held = 0;
    if (p->state_fd < 0 || ioctl(p->state_fd, FIONREAD, &held)) return;
    while (held > 0) {
        ssize_t size = read(p->state_fd, chunk, (size_t)held < sizeof chunk ? (size_t)held : sizeof chunk);
        if (size <= 0) return;
        held -= (int)size;
        /* What is too long is read all the same: the shell must not wait for us. */
        if (p->report.size + (size_t)size > REPORT_MAX) p->report.failed = true;
        if (!p->report.failed) put_bytes(&p->report, chunk, (size_t)size);
    }
}

void report_close(const struct supervisor *s, struct process *p) {
    char path[REPORTS_PATH + 32];
    if (p->state_fd < 0) return;
    report_read(p);
    close_fd(&p->state_fd);
    if (name_file(s, p, "", path, sizeof path)) unlink(path);
    if (name_file(s, p, ".bash", path, sizeof path)) unlink(path);
    if (p->report.failed) buffer_free(&p->report);
}
