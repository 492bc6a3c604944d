#include "init/conn.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/fd.h"
#include "base/frame.h"
#include "init/table.h"
#include "init/tunnel.h"
#include "init/watch.h"

enum {
    OUT_MAX = 4 << 20, /* bytes: a server that lets so much wait does not read at all */
    OUT_KEEP = 1 << 20, /* bytes: a larger buffer is freed when it is empty */
    DROP_MIN = 64 << 10, /* bytes: fewer are not worth moving the rest */
};

/* us; the protocol says that HELLO must come within five seconds. */
static const int64_t HELLO_LIMIT = 5000000;

uint32_t conn_index(const struct supervisor *s, const struct conn *c) { return (uint32_t)(c - s->conns); }

bool conn_overflows(const struct conn *c) { return conn_waiting(c) > OUT_MAX; }

void conn_close(struct supervisor *s, struct conn *c) {
    if (s->active == c) {
        s->active = NULL;
        table_reset_reader(s);
        tunnels_close(s);
    }
    close_fd(&c->fd);
    buffer_free(&c->in);
    buffer_free(&c->out);
    *c = (struct conn){.fd = -1};
}

void conn_lose(struct supervisor *s, struct conn *c) {
    if (s->active != c) {
        conn_close(s, c);
        return;
    }
    close_fd(&c->fd);
    buffer_free(&c->in);
    c->held = 0;
}

bool conn_acknowledged(struct conn *c, uint64_t position) {
    if (position > c->start + c->sent) return false;
    if (position <= c->start + c->acked) return true; /* an earlier ACK that was sent again */
    c->acked = (size_t)(position - c->start);
    if (c->acked < c->out.size && (c->acked < DROP_MIN || c->acked < c->out.size / 2)) return true;
    if (c->acked == c->out.size && c->out.room > OUT_KEEP) buffer_free(&c->out);
    else buffer_drop_front(&c->out, c->acked);
    c->start = position;
    c->sent -= c->acked;
    c->acked = 0;
    return true;
}

bool conn_resume(struct supervisor *s, struct conn *c, uint64_t position) {
    struct conn *old = s->active;
    if (position < old->start + old->acked || !conn_acknowledged(old, position)) return false;
    int fd = c->fd;
    struct buffer in = c->in;
    close_fd(&old->fd);
    buffer_free(&old->in);
    *c = *old;
    c->fd = fd;
    c->in = in;
    c->sent = c->acked;
    c->told = c->taken;
    c->held = 0;
    c->wants_write = false;
    *old = (struct conn){.fd = -1};
    s->active = c;
    return true;
}

bool conn_send_first(const struct conn *c, const struct buffer *first) {
    /* A new socket has room for so few bytes. */
    return !first->failed && send(c->fd, first->data, first->size, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)first->size;
}

bool conn_flush(struct conn *c) {
    while (c->fd >= 0 && conn_waiting(c)) {
        ssize_t count = send(c->fd, c->out.data + c->sent, conn_waiting(c), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (count < 0 && errno == EINTR) continue;
        if (count < 0 && errno == EAGAIN) break;
        if (count < 0) return false;
        c->sent += (size_t)count;
    }
    return true;
}

void conn_refuse(struct supervisor *s, struct conn *c, const char *fault) {
    size_t at = frame_begin(&c->out, ANS_ERROR, 0);
    put_str(&c->out, fault, strlen(fault));
    frame_end(&c->out, at);
    if (!c->out.failed) conn_flush(c);
    conn_close(s, c);
}

/* Strangers must not keep the server out: the one that has been silent for the longest time makes room. */
static struct conn *free_slot(struct supervisor *s) {
    struct conn *oldest = NULL;
    for (struct conn *c = s->conns; c < s->conns + CONNS_MAX; c++) {
        if (c == s->active) continue;
        if (c->fd < 0) return c;
        if (!oldest || c->deadline < oldest->deadline) oldest = c;
    }
    conn_close(s, oldest);
    return oldest;
}

/* We are out of descriptors. A connection that nobody accepts would wake the loop again and again. */
static void turn_away(struct supervisor *s) {
    close_fd(&s->spare);
    int fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC);
    close_fd(&fd);
    s->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

void conn_accept(struct supervisor *s) {
    int fd = accept4(s->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0 && (errno == EMFILE || errno == ENFILE)) turn_away(s);
    if (fd < 0) return;
    struct ucred peer;
    socklen_t size = sizeof peer;
    bool own = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == geteuid();
    struct conn *c = own ? free_slot(s) : NULL;
    if (!c || !watch_add(s, fd, WATCH_CONN, conn_index(s, c), EPOLLIN)) {
        close(fd);
        return;
    }
    *c = (struct conn){.fd = fd, .deadline = clock_now() + HELLO_LIMIT};
}

void conn_expire(struct supervisor *s, int64_t now) {
    for (struct conn *c = s->conns; c < s->conns + CONNS_MAX; c++)
        if (c->fd >= 0 && now >= c->deadline) conn_close(s, c); /* without a word: its stream may have been held up */
}

int64_t conn_next(const struct supervisor *s) {
    int64_t next = NEVER;
    for (const struct conn *c = s->conns; c < s->conns + CONNS_MAX; c++)
        if (c->fd >= 0 && c->deadline < next) next = c->deadline;
    if (s->active && s->active->fd >= 0 && s->active->held && s->active->held < next) next = s->active->held;
    return next;
}
