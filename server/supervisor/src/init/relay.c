#include "init/relay.h"

#include <errno.h>
#include <sys/socket.h>

#include "base/bytes.h"
#include "base/frame.h"
#include "init/conn.h"
#include "init/listen.h"
#include "init/tunnel.h"

/* Bytes of tunnels that are in the buffer at once. The next batch begins when the last one has left, so that the output
   of processes, which fills the buffer up to a higher mark, always finds room in it. */
enum { BATCH = 192 << 10 };

static size_t begin(struct supervisor *s, enum answer_type type, uint32_t number) {
    s->active->urgent = true;
    return frame_begin(&s->active->out, type, number);
}

void relay_listening(struct supervisor *s, int error) {
    struct buffer *out = &s->active->out;
    size_t at = begin(s, ANS_LISTENING, 0);
    put_u16(out, s->tunnels.port);
    put_u8(out, listen_families(s));
    put_u32(out, (uint32_t)error);
    frame_end(out, at);
}

void relay_reset(struct supervisor *s, uint32_t number, int error) {
    size_t at = begin(s, ANS_TUNNEL_RESET, number);
    put_u32(&s->active->out, (uint32_t)error);
    frame_end(&s->active->out, at);
}

static void tell(struct supervisor *s, struct tunnel *t) {
    size_t at = begin(s, ANS_TUNNEL, t->number);
    put_u32(&s->active->out, s->tunnels.window);
    frame_end(&s->active->out, at);
    t->told = true;
}

/* Not for each piece: while three quarters of the window are left, nobody waits for the rest. */
static void acknowledge(struct supervisor *s, struct tunnel *t) {
    if (t->consumed < s->tunnels.window / 4) return;
    size_t at = begin(s, ANS_TUNNEL_CREDIT, t->number);
    put_u32(&s->active->out, t->consumed);
    frame_end(&s->active->out, at);
    t->held -= t->consumed;
    t->consumed = 0;
}

/* Reads a piece right into a frame; returns its size, 0 when there was nothing to read. */
static size_t read_piece(struct supervisor *s, struct tunnel *t, size_t most) {
    struct buffer *out = &s->active->out;
    if (most > TUNNEL_PIECE) most = TUNNEL_PIECE;
    if (most > t->credit) most = (size_t)t->credit;
    size_t at = frame_begin(out, ANS_TUNNEL_DATA, t->number);
    ssize_t count = -1;
    if (buffer_reserve(out, most))
        while ((count = recv(t->fd, out->data + out->size, most, MSG_DONTWAIT)) < 0 && errno == EINTR) continue;
    if (out->failed) return 0;
    if (count > 0) {
        out->size += (size_t)count;
        frame_end(out, at);
        t->credit -= (uint64_t)count;
        s->active->urgent = true;
        return (size_t)count;
    }
    out->size = at;
    t->readable = false;
    if (count == 0) {
        t->ended = true;
        frame_end(out, begin(s, ANS_TUNNEL_END, t->number));
    } else if (errno != EAGAIN) {
        t->error = errno;
    }
    return 0;
}

static bool wants_to_read(const struct tunnel *t) {
    return t->fd >= 0 && t->told && t->readable && t->credit && !t->ended && !t->error;
}

/* What a tunnel has to say beside its bytes. */
static void settle(struct supervisor *s, struct tunnel *t) {
    if (t->fd < 0 || t->connecting) return;
    if (!t->told && !t->error) tell(s, t);
    tunnel_flush(t);
    if (!t->error) acknowledge(s, t);
    if (t->error) relay_reset(s, t->number, t->error);
    if (t->error || (t->ended && t->closed)) tunnel_close(s, t, t->error);
}

/* Reads a piece of each tunnel in turn until the batch is full; returns true when somebody has more. */
static bool read_batch(struct supervisor *s) {
    struct tunnels *n = &s->tunnels;
    size_t added = 0;
    bool progress = true, more = false;
    for (; progress && added < BATCH; more = progress) {
        progress = false;
        for (size_t i = 0; i < TUNNELS_MAX && added < BATCH; i++) {
            struct tunnel *t = &n->all[n->turn++ % TUNNELS_MAX];
            if (!wants_to_read(t)) continue;
            added += read_piece(s, t, BATCH - added);
            progress = true;
        }
    }
    if (added) n->mark = conn_passed(s->active) + conn_waiting(s->active);
    return more;
}

bool relay_pump(struct supervisor *s) {
    struct tunnels *n = &s->tunnels;
    bool more = listen_accept(s);
    if (!n->count) return more;
    for (struct tunnel *t = n->all; t < n->all + TUNNELS_MAX; t++) settle(s, t);
    if (conn_passed(s->active) >= n->mark && !conn_full(s->active)) more |= read_batch(s);
    /* What a tunnel's end and its broken socket mean is known only now. */
    for (struct tunnel *t = n->all; t < n->all + TUNNELS_MAX; t++) settle(s, t);
    return more;
}
