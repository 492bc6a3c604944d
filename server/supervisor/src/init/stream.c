#include "init/stream.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>

#include "base/fd.h"
#include "base/spool.h"
#include "init/watch.h"

enum {
    READ_CHUNK = 128 << 10,  /* bytes per turn of the loop: a process that prints without end starves nobody */
    PTY_DRAIN_MAX = 1 << 20, /* bytes: a pty cannot say how much it holds, but it never holds more */
};

/* Where the bytes begin that must stay: those that were not sent, and before them what a server may have had that died
   before its reader had it. Of the ring, and not of its limit: it does not always grow to that. */
static uint64_t kept_from(const struct stream *from) {
    uint64_t sent = from->spool.room / 4 * 3;
    return from->cursor > sent ? from->cursor - sent : 0;
}

/* How many of `most` bytes may be read. */
static size_t allowed(const struct process *p, struct stream *from, size_t most) {
    if (most > READ_CHUNK) most = READ_CHUNK;
    return p->flags & SPAWN_HOLD ? spool_vacancy(&from->spool, kept_from(from), most) : most;
}

void stream_read(struct supervisor *s, struct process *p, int stream) {
    struct stream *from = &p->streams[stream];
    if (from->fd < 0 || from->paused) return;
    size_t most = allowed(p, from, READ_CHUNK);
    if (!most) {
        /* Removed and not left without wanted events: epoll would report the writer's end again and again. */
        watch_remove(s, from->fd);
        from->paused = true;
        return;
    }
    ssize_t count = spool_read(&from->spool, from->fd, most);
    /* A pty returns EIO when its last slave has been closed. */
    if (count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR)) close_fd(&from->fd);
}

static size_t held(const struct stream *from) {
    int count = 0;
    return from->fd >= 0 && ioctl(from->fd, FIONREAD, &count) == 0 && count > 0 ? (size_t)count : 0;
}

void stream_drain(struct process *p) {
    for (struct stream *from = p->streams; from < p->streams + STREAMS; from++) {
        size_t left = from->fd < 0 ? 0 : p->flags & SPAWN_PTY ? PTY_DRAIN_MAX : held(from), most;
        while (left && (most = allowed(p, from, left))) {
            ssize_t count = spool_read(&from->spool, from->fd, most);
            if (count <= 0) break;
            left -= (size_t)count;
        }
        from->gate = from->spool.total;
    }
}

uint64_t stream_total(const struct process *p, int stream) {
    const struct stream *from = &p->streams[stream];
    return from->spool.total + (p->flags & SPAWN_HOLD ? held(from) : 0);
}

bool stream_owed(const struct process *p) {
    if (!(p->flags & SPAWN_HOLD)) return false;
    for (int i = 0; i < STREAMS; i++)
        if (p->streams[i].fd >= 0 || p->streams[i].cursor < p->streams[i].spool.total) return true;
    return false;
}

void stream_resume(struct supervisor *s) {
    for (struct process *p = s->processes; p; p = p->next)
        for (int i = 0; i < STREAMS; i++) {
            struct stream *from = &p->streams[i];
            if (!from->paused || from->fd < 0 || !allowed(p, from, READ_CHUNK)) continue;
            from->paused = false;
            watch_add(s, from->fd, i ? WATCH_ERR : WATCH_OUT, p->number, EPOLLIN);
        }
}
