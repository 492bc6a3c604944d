#include "init/dispatch.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "base/bytes.h"
#include "base/fd.h"
#include "base/frame.h"
#include "base/request.h"
#include "init/answer.h"
#include "init/conn.h"
#include "init/descendants.h"
#include "init/input.h"
#include "init/kill.h"
#include "init/listen.h"
#include "init/relay.h"
#include "init/spawn.h"
#include "init/table.h"
#include "init/tunnel.h"
#include "init/watch.h"
#include "sudo/password.h"
#include "sudo/paths.h"

enum {
    READ_SIZE = 256 << 10, /* bytes that the bridge passes on at once */
    IN_KEEP = 512 << 10, /* bytes: a buffer of the usual size is kept for the next requests */
};

/* Compares in the same time wherever the tokens differ. */
static bool token_matches(const struct supervisor *s, struct slice token) {
    uint8_t difference = s->token_size != token.size;
    for (size_t i = 0; i < token.size; i++) difference |= (uint8_t)(s->token[i] ^ token.data[i]);
    return !difference;
}

/* A stream that has broken already, behind its HELLO, ends its connection, and not the session. */
static void welcome(struct supervisor *s, bool first_claim) {
    struct buffer out = {0};
    answer_welcome(&out, s, first_claim);
    if (!conn_send_first(s->active, &out)) shutdown(s->active->fd, SHUT_RDWR);
    buffer_free(&out);
}

/* Goes on with the session of an earlier connection. */
static const char *resume(struct supervisor *s, struct conn *c, const struct request *q) {
    if (!s->token_size) return "the supervisor was restarted";
    if (!token_matches(s, q->token)) return "the token is wrong";
    if (!s->active || q->session != s->session) return "another connection has taken this one's place";
    if (!conn_resume(s, c, q->position)) return "what this connection has got does not fit";
    s->last_seen = clock_now();
    welcome(s, false);
    return NULL;
}

static const char *hello(struct supervisor *s, struct conn *c, const struct request *q) {
    if (c == s->active) return "HELLO came twice";
    if (q->version != PROTOCOL_VERSION) return "the supervisor speaks version 7 of the protocol";
    if (q->token.size < TOKEN_MIN || q->token.size > TOKEN_MAX) return "the token has a wrong size";
    if (q->session) return resume(s, c, q);
    bool first_claim = !s->token_size;
    if (first_claim) {
        memcpy(s->token, q->token.data, q->token.size);
        s->token_size = q->token.size;
        (void)!chmod(s->socket, 0700); /* seen from outside, its mode says that somebody has us */
    }
    if (!token_matches(s, q->token)) return "the token is wrong";
    if (s->active) conn_refuse(s, s->active, "another connection has taken this one's place");
    s->active = c;
    c->deadline = NEVER;
    s->orphan_ttl_ms = q->orphan_ttl_ms;
    s->last_seen = clock_now();
    s->session++;
    table_reset_reader(s);
    welcome(s, first_claim);
    if (s->sudo.refused) answer_sudo(s, SUDO_REFUSED);
    return NULL;
}

/* The process is gone, but its EXIT still waits for output to be sent, and KILLED must not overtake it. */
static void owe_killed(struct process *p, uint8_t reason) {
    p->survivors = 0;
    p->kill.reason = reason;
    p->owed |= OWED_KILLED;
}

static const char *kill_request(struct supervisor *s, struct process *p, const struct request *q) {
    if (q->process == 0) kill_begin(s, NULL, q->reason, q->grace_ms, false);
    else if (p && p->state != STATE_GONE) kill_begin(s, p, q->reason, q->grace_ms, false);
    else if (!p || !p->owed) answer_killed(s, q->process, q->reason, 0, p);
    else owe_killed(p, q->reason);
    return NULL;
}

static void forget(struct supervisor *s, struct process *p) {
    if (p->state == STATE_GONE && !p->owed) table_remove(s, p);
    else p->forget = true;
}

static void resize(struct process *p, const struct request *q) {
    struct winsize size = {.ws_row = q->rows, .ws_col = q->cols};
    if (p->flags & SPAWN_PTY && p->streams[0].fd >= 0) ioctl(p->streams[0].fd, TIOCSWINSZ, &size);
}

static void add_credit(struct stream *to, uint64_t credit) {
    to->credit = credit > UINT64_MAX - to->credit ? UINT64_MAX : to->credit + credit;
}

static void attach(struct stream *to, uint64_t cursor, uint64_t credit) {
    to->cursor = cursor;
    to->credit = credit;
}

/* Requests about one process; for an unknown process they mean nothing. */
static const char *about_process(struct supervisor *s, struct process *p, const struct request *q) {
    switch (q->type) {
    case REQ_STDIN: return input_add(s, p, q->data);
    case REQ_STDIN_EOF: input_end(s, p); break;
    case REQ_SIGNAL:
        if (p->state == STATE_RUNNING && p->main > 0) kill(-p->main, q->signal);
        break;
    case REQ_CREDIT: add_credit(&p->streams[q->stream - 1], q->credit); break;
    case REQ_ATTACH: attach(&p->streams[q->stream - 1], q->cursor, q->credit); break;
    case REQ_FORGET: forget(s, p); break;
    case REQ_RESIZE: resize(p, q); break;
    case REQ_NO_REPORT: p->flags &= (uint16_t)~SPAWN_REPORT; break;
    default: break;
    }
    return NULL;
}

/* Returns an empty string, or why there is no sudo. Then nothing in the sandbox needs to gain privileges, and nothing
   may: the engine has left that open for sudo's sake. */
static const char *set_up_sudo(struct supervisor *s, const struct sudo_request *q) {
    if (!s->is_init || !s->changes_user) return "sudo needs a supervisor that is PID 1 and root of a container";
    const char *fault = password_set_up(&s->sudo, q);
    if (!fault && watch_add(s, s->sudo.socket, WATCH_ASKPASS, 0, EPOLLIN)) return "";
    if (!fault) {
        close_fd(&s->sudo.socket);
        explicit_bzero(&s->sudo, sizeof s->sudo);
        fault = SUDO_SOCKET " cannot be watched";
    }
    if (!s->sudo.ready) prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    return fault;
}

static const char *listen_request(struct supervisor *s, const struct request *q) {
    relay_listening(s, listen_begin(s, q->port));
    s->tunnels.places = q->places;
    return NULL;
}

static const char *open_request(struct supervisor *s, const struct request *q) {
    if (tunnel_find(s, q->process)) return "an OPEN needs a new number";
    int error = tunnel_open(s, q->process, q->port);
    if (error) relay_reset(s, q->process, error);
    return NULL;
}

/* Requests about one tunnel; for one that is gone they mean nothing, because their ends may cross. */
static const char *about_tunnel(struct supervisor *s, const struct request *q) {
    struct tunnel *t = tunnel_find(s, q->process);
    if (!t) return NULL;
    switch (q->type) {
    case REQ_TUNNEL_DATA: return tunnel_write(s, t, q->data);
    case REQ_TUNNEL_CREDIT: t->credit += q->size; break;
    case REQ_TUNNEL_END: tunnel_end(t); break;
    default: tunnel_close(s, t, true); break;
    }
    return NULL;
}

static void add_places(struct tunnels *n, uint32_t places) {
    n->places = places > UINT32_MAX - n->places ? UINT32_MAX : n->places + places;
}

static const char *serve_tunnels(struct supervisor *s, const struct request *q) {
    switch (q->type) {
    case REQ_LISTEN: return listen_request(s, q);
    case REQ_OPEN: return open_request(s, q);
    case REQ_ACCEPT: add_places(&s->tunnels, q->places); return NULL;
    default: return about_tunnel(s, q);
    }
}

static const char *serve(struct supervisor *s, struct conn *c, const struct frame *frame) {
    struct request q;
    const char *fault = request_parse(frame, &q);
    if (q.type == REQ_HELLO) return fault ? fault : hello(s, c, &q);
    if (c != s->active) return "the first frame must be HELLO";
    if (fault) return fault;
    if (q.type == REQ_ACK) return conn_acknowledged(c, q.position) ? NULL : "an ACK is out of bounds";
    if (q.type >= REQ_LISTEN) return serve_tunnels(s, &q);
    struct process *p = table_find(s, q.process);
    switch (q.type) {
    case REQ_SPAWN:
        if (p || !q.process) return "a SPAWN needs a new number";
        spawn(s, q.process, &q.spawn);
        return NULL;
    case REQ_KILL: return kill_request(s, p, &q);
    case REQ_LIST:
        descendants_recount(s);
        answer_listing(s);
        return NULL;
    case REQ_SUDO: answer_sudo(s, set_up_sudo(s, &q.sudo)); return NULL;
    case REQ_PING: answer_pong(s); return NULL;
    case REQ_SHUTDOWN:
        s->asked = true;
        kill_and_leave(s, q.grace_ms);
        return NULL;
    case REQ_READ: answer_data(s, &q, p); return NULL;
    case REQ_STATE: answer_state(s, q.size); return NULL;
    default: break;
    }
    if (p) return about_process(s, p, &q);
    if (q.type == REQ_STDIN) answer_ack(s, q.process, (uint32_t)q.data.size);
    return NULL;
}

/* Serves the frames in the buffer; a fault in one closes the connection. */
static void serve_frames(struct supervisor *s, struct conn *c) {
    size_t done = 0, used;
    struct frame frame;
    enum frame_state state;
    for (;;) {
        size_t limit = c == s->active ? FRAME_MAX_LENGTH : FRAME_MAX_HELLO;
        state = frame_next(c->in.data + done, c->in.size - done, limit, &frame, &used);
        if (state != FRAME_WHOLE) break;
        const char *fault = serve(s, c, &frame);
        if (fault) {
            conn_refuse(s, c, fault);
            return;
        }
        /* The token has been compared and the password taken: no process that is forked may find them. */
        if (frame.type == REQ_HELLO || frame.type == REQ_SUDO) explicit_bzero(c->in.data + done, used);
        done += used;
        if (c == s->active && frame.type != REQ_HELLO) c->taken += used;
        if (c->out.failed || conn_overflows(c)) {
            conn_close(s, c);
            return;
        }
    }
    if (state == FRAME_BAD) {
        conn_refuse(s, c, "a frame's length is out of bounds");
        return;
    }
    buffer_drop_front(&c->in, done);
    if (!c->in.size && c->in.room > IN_KEEP) buffer_free(&c->in);
}

void dispatch_event(struct supervisor *s, struct conn *c, uint32_t events) {
    if (c->fd < 0 || !(events & (EPOLLIN | EPOLLHUP | EPOLLERR))) return;
    if (!buffer_reserve(&c->in, READ_SIZE)) {
        conn_close(s, c);
        return;
    }
    ssize_t count = recv(c->fd, c->in.data + c->in.size, READ_SIZE, MSG_DONTWAIT);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (count <= 0) {
        conn_lose(s, c);
        return;
    }
    if (c == s->active) s->last_seen = clock_now();
    c->in.size += (size_t)count;
    serve_frames(s, c);
}
