#include "init/answer.h"

#include <string.h>
#include <sys/wait.h>

#include "base/bytes.h"
#include "base/frame.h"
#include "base/spool.h"
#include "init/conn.h"
#include "init/input.h"
#include "init/stream.h"
#include "init/table.h"

enum {
    OUT_MARK = 256 << 10,   /* output is added only while less than this waits */
    OUTPUT_CHUNK = 64 << 10, /* output in one frame: no other frame waits for more */
    LISTED_MAX = 100,        /* processes in one frame: with the longest tags it stays below the limit */
    ACK_STEP = 256 << 10,    /* bytes of requests after which the server must learn that they have been served */
    ACK_ALONG = 4 << 10,     /* and after which it learns so together with something else */
};

/* Marks the buffer as urgent: the server waits for the frame that follows, so it must not be held back. */
static struct buffer *urgent(struct supervisor *s) {
    s->active->urgent = true;
    return &s->active->out;
}

void answer_welcome(struct buffer *out, const struct supervisor *s, bool first_claim) {
    size_t at = frame_begin(out, ANS_WELCOME, 0);
    put_u32(out, PROTOCOL_VERSION);
    put_u8(out, (uint8_t)(s->changes_user | s->is_init << 1 | first_claim << 2));
    put_u64(out, (uint64_t)((clock_now() - s->started) / MS));
    put_u32(out, s->session);
    put_u64(out, s->active->taken);
    frame_end(out, at);
}

void answer_acknowledge(struct supervisor *s) {
    struct conn *c = s->active;
    uint64_t owed = c->taken - c->told;
    if (owed < (conn_waiting(c) ? ACK_ALONG : ACK_STEP)) return;
    size_t at = frame_begin(&c->out, ANS_ACK, 0);
    put_u64(&c->out, c->taken);
    frame_end(&c->out, at);
    c->told = c->taken;
}

void answer_spawned(struct supervisor *s, const struct process *p) {
    if (!s->active) return;
    struct buffer *out = &s->active->out;
    size_t at = frame_begin(out, ANS_SPAWNED, p->number);
    put_u32(out, (uint32_t)p->main);
    frame_end(out, at);
}

void answer_failed(struct supervisor *s, uint32_t number, int stage, int error, const char *text) {
    if (!s->active) return;
    struct buffer *out = urgent(s);
    size_t at = frame_begin(out, ANS_FAILED, number);
    put_u8(out, (uint8_t)stage);
    put_u32(out, (uint32_t)error);
    put_str(out, text, strlen(text));
    frame_end(out, at);
}

void answer_killed(struct supervisor *s, uint32_t number, uint8_t reason, uint32_t survivors, const struct process *p) {
    struct buffer *out = urgent(s);
    size_t at = frame_begin(out, ANS_KILLED, number);
    put_u8(out, reason);
    put_u32(out, survivors);
    for (int i = 0; i < STREAMS; i++) put_u64(out, p ? stream_total(p, i) : 0);
    frame_end(out, at);
}

void answer_ack(struct supervisor *s, uint32_t number, uint32_t count) {
    struct buffer *out = urgent(s);
    size_t at = frame_begin(out, ANS_STDIN_ACK, number);
    put_u32(out, count);
    frame_end(out, at);
}

void answer_pong(struct supervisor *s) {
    struct buffer *out = urgent(s);
    frame_end(out, frame_begin(out, ANS_PONG, 0));
}

void answer_sudo(struct supervisor *s, const char *problem) {
    struct buffer *out = urgent(s);
    size_t at = frame_begin(out, ANS_SUDO, 0);
    put_str(out, problem, strlen(problem));
    frame_end(out, at);
}

static void put_ending(struct buffer *out, const struct process *p) {
    bool ended = p->state >= STATE_EXITED, signalled = ended && WIFSIGNALED(p->status);
    int code = !ended ? 0 : signalled ? -1 : WEXITSTATUS(p->status);
    put_u8(out, p->reason);
    put_u32(out, (uint32_t)code);
    put_u8(out, (uint8_t)(signalled ? WTERMSIG(p->status) : 0));
    put_u32(out, p->oom_kills);
    put_u64(out, ended ? (uint64_t)(p->ended - p->started) : 0);
}

static void answer_exit(struct buffer *out, struct process *p) {
    size_t at = frame_begin(out, ANS_EXIT, p->number);
    put_ending(out, p);
    put_u64(out, (uint64_t)p->user_us);
    put_u64(out, (uint64_t)p->system_us);
    put_u64(out, (uint64_t)p->max_rss_kb);
    for (int i = 0; i < STREAMS; i++) put_u64(out, p->exit_totals[i]);
    put_u32(out, p->descendants);
    put_u32(out, p->refused_forks);
    put_u32(out, (uint32_t)p->report_size);
    put_bytes(out, p->report.data, p->report.size);
    frame_end(out, at);
    buffer_free(&p->report);
}

static void put_listed(struct buffer *out, const struct process *p) {
    put_u32(out, p->number);
    put_u8(out, (uint8_t)(p->state < STATE_EXITED ? 0 : p->state == STATE_EXITED ? 1 : 2));
    put_u32(out, (uint32_t)p->main);
    put_u64(out, (uint64_t)((clock_now() - p->born) / MS));
    for (int i = 0; i < STREAMS; i++) {
        put_u64(out, spool_start(&p->streams[i].spool));
        put_u64(out, p->streams[i].spool.total);
    }
    put_ending(out, p);
    put_u32(out, p->survivors);
    put_u32(out, p->alive);
    put_str(out, p->tag, strlen(p->tag));
}

void answer_listing(struct supervisor *s) {
    struct buffer *out = urgent(s);
    const struct process *p = s->processes;
    size_t left = s->process_count;
    do {
        size_t count = left < LISTED_MAX ? left : LISTED_MAX;
        left -= count;
        size_t at = frame_begin(out, ANS_LISTING, 0);
        put_u8(out, !left);
        put_u32(out, (uint32_t)count);
        for (; count; count--, p = p->next) put_listed(out, p);
        frame_end(out, at);
    } while (left);
}

void answer_state(struct supervisor *s, uint32_t from) {
    struct buffer *out = urgent(s);
    bool is_kept = s->state_tag && !s->state.failed;
    size_t total = is_kept ? s->state.size : 0, left = from < total ? total - from : 0;
    size_t at = frame_begin(out, ANS_STATE, 0);
    put_str(out, is_kept ? s->state_tag : "", is_kept ? strlen(s->state_tag) : 0);
    put_u32(out, (uint32_t)total);
    if (left) put_bytes(out, s->state.data + from, left < REPORT_PIECE ? left : REPORT_PIECE);
    frame_end(out, at);
}

void answer_data(struct supervisor *s, const struct request *q, const struct process *p) {
    struct buffer *out = urgent(s);
    const struct spool *from = p ? &p->streams[q->stream - 1].spool : NULL;
    uint64_t start = from ? spool_start(from) : 0, total = from ? from->total : 0, at = q->cursor;
    if (at == UINT64_MAX) at = total > q->size ? total - q->size : 0;
    if (at < start) at = start;
    if (at > total) at = total;
    struct iovec parts[2] = {{0}};
    if (from) spool_peek(from, at, q->size, parts);
    size_t frame = frame_begin(out, ANS_DATA, q->process);
    put_u8(out, p ? q->stream : 0);
    put_u64(out, start);
    put_u64(out, p ? stream_total(p, q->stream - 1) : 0);
    put_u64(out, at);
    for (int i = 0; i < 2; i++) put_bytes(out, parts[i].iov_base, parts[i].iov_len);
    frame_end(out, frame);
}

/* Adds one frame of output; returns false when there is nothing to send. */
static bool send_output(struct supervisor *s, struct process *p, int stream) {
    struct stream *from = &p->streams[stream];
    uint64_t start = spool_start(&from->spool);
    if (!from->credit || from->cursor >= from->spool.total) return false;
    if (from->cursor < start) from->cursor = start;
    struct iovec parts[2];
    size_t most = from->credit < OUTPUT_CHUNK ? (size_t)from->credit : OUTPUT_CHUNK;
    size_t size = spool_peek(&from->spool, from->cursor, most, parts);
    if (!size) return false;
    struct buffer *out = &s->active->out;
    size_t at = frame_begin(out, ANS_OUTPUT, p->number);
    put_u8(out, (uint8_t)(stream + 1));
    put_u64(out, from->cursor);
    for (int i = 0; i < 2; i++) put_bytes(out, parts[i].iov_base, parts[i].iov_len);
    frame_end(out, at);
    from->cursor += size;
    from->credit -= size;
    return true;
}

static bool gates_open(const struct process *p) {
    for (int i = 0; i < STREAMS; i++)
        if (p->streams[i].credit && p->streams[i].cursor < p->streams[i].gate) return false;
    return true;
}

/* With the larger window not for each piece: while three quarters of it are left, nobody waits for the rest. */
static bool owes_ack(const struct process *p) {
    size_t step = p->flags & SPAWN_BULK_INPUT && p->input.fd >= 0 ? BULK_WINDOW / 4 : 1;
    return p->input.consumed >= step;
}

static void send_owed(struct supervisor *s, struct process *p) {
    if (owes_ack(p)) {
        answer_ack(s, p->number, p->input.consumed);
        p->input.consumed = 0;
    }
    if (!p->owed || !gates_open(p)) return;
    if (p->owed & OWED_EXIT) answer_exit(urgent(s), p);
    if (p->owed & OWED_KILLED) answer_killed(s, p->number, p->kill.reason, p->survivors, p);
    if (p->owed & OWED_GONE) frame_end(&s->active->out, frame_begin(&s->active->out, ANS_GONE, p->number));
    p->owed = 0;
}

/* The KILLED for everything comes after the EXIT of each process. */
static void send_told_everything(struct supervisor *s) {
    if (!s->told_everything) return;
    for (const struct process *p = s->processes; p; p = p->next)
        if (p->owed) return;
    answer_killed(s, 0, s->everything.reason, s->everything_survivors, NULL);
    s->told_everything = false;
}

/* Takes the turn of one process; returns false when the connection's buffer is full before it. */
static bool take_turn(struct supervisor *s, struct process *p, bool *progress) {
    for (int i = 0; i < STREAMS && p->state != STATE_STARTING; i++) {
        if (conn_waiting(s->active) >= OUT_MARK || conn_full(s->active)) return false;
        *progress |= send_output(s, p, i);
    }
    send_owed(s, p);
    return true;
}

bool answer_pump(struct supervisor *s) {
    bool progress = true;
    /* Start where the last pump stopped: a process that prints without end must not take every turn. */
    struct process *p = table_find(s, s->turn);
    while (progress) {
        progress = false;
        for (size_t i = 0; i < s->process_count; i++, p = p->next) {
            if (!p) p = s->processes;
            if (take_turn(s, p, &progress)) continue;
            s->turn = p->number;
            return true;
        }
    }
    send_told_everything(s);
    return false;
}
