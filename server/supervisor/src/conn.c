/* Connections: one that is served, and a few strangers that have not said HELLO yet. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "supervisor.h"

enum {
    READ_SIZE = 64 << 10,
    OUT_MAX = 4 << 20, /* a server that lets so much wait does not read at all */
    OUT_KEEP = 1 << 20, /* a buffer that grew beyond this is given back when it is empty */
    HOLD_MAX = 16 << 10, /* more than this is worth a write of its own */
};

/* A short command's SPAWNED, OUTPUT and EXIT go out together: each write wakes four programs up to the server. Nobody
   waits for the first two alone, and a person does not see five milliseconds. */
static const int64_t HOLD = 5000;

/* The protocol's: HELLO must come within five seconds. */
static const int64_t HELLO_LIMIT = 5000000;

static uint32_t index_of(const struct supervisor *s, const struct conn *c) { return (uint32_t)(c - s->conns); }

size_t conn_waiting(const struct conn *c) { return c->out.size - c->sent; }

void conn_close(struct supervisor *s, struct conn *c) {
    if (s->active == c) {
        s->active = NULL;
        s->last_seen = clock_now();
        process_reset_reader(s);
    }
    close_fd(&c->fd);
    buffer_free(&c->in);
    buffer_free(&c->out);
    *c = (struct conn){.fd = -1};
}

/* False when the connection is broken. */
static bool flush(struct conn *c) {
    while (conn_waiting(c)) {
        ssize_t count = send(c->fd, c->out.data + c->sent, conn_waiting(c), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (count < 0 && errno == EINTR) continue;
        if (count < 0 && errno == EAGAIN) break;
        if (count < 0) return false;
        c->sent += (size_t)count;
    }
    if (!conn_waiting(c) && c->out.room > OUT_KEEP) buffer_free(&c->out);
    else buffer_drop_front(&c->out, c->sent);
    c->sent = 0;
    return true;
}

void conn_refuse(struct supervisor *s, struct conn *c, const char *fault) {
    size_t at = frame_begin(&c->out, ANS_ERROR, 0), size = 0;
    while (fault[size]) size++;
    put_str(&c->out, fault, size);
    frame_end(&c->out, at);
    if (!c->out.failed) flush(c);
    conn_close(s, c);
}

/* Whether what is in the buffer may wait for company. */
static bool holds_back(struct conn *c) {
    if (c->urgent || c->wants_write || !conn_waiting(c) || conn_waiting(c) > HOLD_MAX) return false;
    int64_t now = clock_now();
    if (!c->held) c->held = now + HOLD;
    return now < c->held;
}

void conn_serve(struct supervisor *s) {
    struct conn *c = s->active;
    if (!c) return;
    bool more = answer_pump(s);
    if (!more && !c->out.failed && !s->leaving && holds_back(c)) return;
    c->held = 0;
    c->urgent = false;
    if (c->out.failed || conn_waiting(c) > OUT_MAX || !flush(c)) {
        conn_close(s, c);
        return;
    }
    bool wants_write = more || conn_waiting(c);
    if (wants_write == c->wants_write) return;
    c->wants_write = wants_write;
    watch_change(s, c->fd, WATCH_CONN, index_of(s, c), wants_write ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

/* Strangers must not keep the server out: the one that has been silent for longest makes room. */
static struct conn *free_slot(struct supervisor *s) {
    struct conn *oldest = NULL;
    for (struct conn *c = s->conns; c < s->conns + CONNS_MAX; c++) {
        if (c->fd < 0) return c;
        if (c != s->active && (!oldest || c->deadline < oldest->deadline)) oldest = c;
    }
    conn_close(s, oldest);
    return oldest;
}

/* Out of descriptors: a connection that nobody takes would wake the loop again and again. */
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
    if (!c || !watch_add(s, fd, WATCH_CONN, index_of(s, c), EPOLLIN)) {
        close(fd);
        return;
    }
    *c = (struct conn){.fd = fd, .deadline = clock_now() + HELLO_LIMIT};
}

/* What stands in the buffer, frame by frame; false when the connection was closed over it. */
static bool serve_frames(struct supervisor *s, struct conn *c) {
    size_t done = 0, used;
    struct frame frame;
    enum frame_state state;
    for (;;) {
        size_t limit = c == s->active ? FRAME_MAX_LENGTH : FRAME_MAX_HELLO;
        state = frame_next(c->in.data + done, c->in.size - done, limit, &frame, &used);
        if (state != FRAME_WHOLE) break;
        const char *fault = request_serve(s, c, &frame);
        if (fault) {
            conn_refuse(s, c, fault);
            return false;
        }
        /* A token that has been compared is of no more use, nor a password that was taken; nothing that is forked shall
           find them. */
        if (frame.type == REQ_HELLO || frame.type == REQ_SUDO) explicit_bzero(c->in.data + done, used);
        done += used;
        if (c->out.failed || conn_waiting(c) > OUT_MAX) {
            conn_close(s, c);
            return false;
        }
    }
    if (state == FRAME_BAD) {
        conn_refuse(s, c, "a frame's length is out of bounds");
        return false;
    }
    buffer_drop_front(&c->in, done);
    /* One of the usual size is kept: the next request needs it again. */
    if (!c->in.size && c->in.room > READ_SIZE) buffer_free(&c->in);
    return true;
}

void conn_event(struct supervisor *s, struct conn *c, uint32_t events) {
    if (c->fd < 0 || !(events & (EPOLLIN | EPOLLHUP | EPOLLERR))) return;
    if (!buffer_reserve(&c->in, READ_SIZE)) {
        conn_close(s, c);
        return;
    }
    ssize_t count = recv(c->fd, c->in.data + c->in.size, READ_SIZE, MSG_DONTWAIT);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (count <= 0) {
        conn_close(s, c);
        return;
    }
    c->in.size += (size_t)count;
    serve_frames(s, c);
}

void conn_expire(struct supervisor *s, int64_t now) {
    for (struct conn *c = s->conns; c < s->conns + CONNS_MAX; c++)
        if (c->fd >= 0 && now >= c->deadline) conn_refuse(s, c, "HELLO did not come in time");
}

int64_t conn_next(const struct supervisor *s) {
    int64_t next = NEVER;
    for (const struct conn *c = s->conns; c < s->conns + CONNS_MAX; c++)
        if (c->fd >= 0 && c->deadline < next) next = c->deadline;
    if (s->active && s->active->held && s->active->held < next) next = s->active->held;
    return next;
}
