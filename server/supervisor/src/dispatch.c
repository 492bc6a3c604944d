/* What each request does. */
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>

#include "supervisor.h"

/* Takes the same time wherever the tokens differ. */
static bool token_matches(const struct supervisor *s, struct slice token) {
    uint8_t difference = s->token_size != token.size;
    for (size_t i = 0; i < token.size; i++) difference |= (uint8_t)(s->token[i] ^ token.data[i]);
    return !difference;
}

static const char *hello(struct supervisor *s, struct conn *c, const struct request *q) {
    if (c == s->active) return "HELLO came twice";
    if (q->version != PROTOCOL_VERSION) return "the supervisor speaks version 2 of the protocol";
    if (q->token.size < TOKEN_MIN || q->token.size > TOKEN_MAX) return "the token has a wrong size";
    bool first_claim = !s->token_size;
    if (first_claim) {
        memcpy(s->token, q->token.data, q->token.size);
        s->token_size = q->token.size;
    }
    if (!token_matches(s, q->token)) return "the token is wrong";
    if (s->active) conn_refuse(s, s->active, "another connection has taken this one's place");
    s->active = c;
    c->deadline = NEVER;
    s->orphan_ttl_ms = q->orphan_ttl_ms;
    process_reset_reader(s);
    answer_welcome(s, first_claim);
    return NULL;
}

/* It is gone, but its EXIT still waits for its output to be sent: KILLED must not overtake that. */
static void owe_killed(struct process *p) {
    p->survivors = 0;
    p->kill.reason = REASON_KILL;
    p->owed |= OWED_KILLED;
}

static const char *kill_request(struct supervisor *s, struct process *p, const struct request *q) {
    if (q->process == 0) kill_begin(s, NULL, REASON_KILL, q->grace_ms, false);
    else if (p && p->state != STATE_GONE) kill_begin(s, p, REASON_KILL, q->grace_ms, false);
    else if (!p || !p->owed) answer_killed(s, q->process, REASON_KILL, 0, p);
    else owe_killed(p);
    return NULL;
}

static void forget(struct supervisor *s, struct process *p) {
    if (p->state == STATE_GONE && !p->owed) process_remove(s, p);
    else p->forget = true;
}

static void resize(struct process *p, const struct request *q) {
    struct winsize size = {.ws_row = q->rows, .ws_col = q->cols};
    if (p->flags & SPAWN_PTY && p->streams[0].fd >= 0) ioctl(p->streams[0].fd, TIOCSWINSZ, &size);
}

static void add_credit(struct stream *to, uint64_t credit) {
    to->credit = credit > UINT64_MAX - to->credit ? UINT64_MAX : to->credit + credit;
}

/* Requests about one process: to one that is not known they mean nothing. */
static const char *about_process(struct supervisor *s, struct process *p, const struct request *q) {
    switch (q->type) {
    case REQ_STDIN: return input_add(s, p, q->data);
    case REQ_STDIN_EOF: input_end(s, p); break;
    case REQ_SIGNAL:
        if (p->state == STATE_RUNNING && p->main > 0) kill(-p->main, q->signal);
        break;
    case REQ_CREDIT: add_credit(&p->streams[q->stream - 1], q->credit); break;
    case REQ_ATTACH: process_attach(p, q->stream - 1, q->cursor, q->credit); break;
    case REQ_FORGET: forget(s, p); break;
    case REQ_RESIZE: resize(p, q); break;
    case REQ_NO_REPORT: p->flags &= (uint8_t)~SPAWN_REPORT; break;
    default: break;
    }
    return NULL;
}

const char *request_serve(struct supervisor *s, struct conn *c, const struct frame *frame) {
    struct request q;
    const char *fault = request_parse(frame, &q);
    if (q.type == REQ_HELLO) return fault ? fault : hello(s, c, &q);
    if (c != s->active) return "the first frame must be HELLO";
    if (fault) return fault;
    struct process *p = process_find(s, q.process);
    switch (q.type) {
    case REQ_SPAWN: return p || !q.process ? "a SPAWN needs a new number" : spawn(s, q.process, &q.spawn);
    case REQ_KILL: return kill_request(s, p, &q);
    case REQ_LIST: answer_listing(s); return NULL;
    case REQ_SUDO: sudo_set_up(s, &q.sudo); return NULL;
    case REQ_PING: answer_pong(s); return NULL;
    case REQ_SHUTDOWN: leave(s, q.grace_ms); return NULL;
    case REQ_READ: answer_data(s, &q, p); return NULL;
    case REQ_STATE: answer_state(s); return NULL;
    default: break;
    }
    if (p) return about_process(s, p, &q);
    if (q.type == REQ_STDIN) answer_ack(s, q.process, (uint32_t)q.data.size);
    return NULL;
}
