#include "init/input.h"

#include <errno.h>
#include <sys/epoll.h>
#include <termios.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/fd.h"
#include "init/watch.h"

enum {
    WINDOW = 64 << 10,
    LEFTOVER_MAX = 1 << 20, /* bytes that several connections, one after the other, may leave unread in all */
    CONTROL_D = 4,
};

static size_t window_of(const struct process *p) { return p->flags & SPAWN_BULK_INPUT ? BULK_WINDOW : WINDOW; }

static void consume(struct input *in, size_t count) {
    size_t stale = count < in->stale ? count : in->stale;
    in->stale -= stale;
    in->consumed += (uint32_t)(count - stale);
    buffer_drop_front(&in->buffer, count);
}

void input_close(struct process *p) {
    struct input *in = &p->input;
    close_fd(&in->fd);
    consume(in, in->buffer.size);
    buffer_free(&in->buffer);
    in->eofs = 0;
}

static uint8_t eof_character(int fd) {
    struct termios t;
    return tcgetattr(fd, &t) == 0 && t.c_cc[VEOF] ? t.c_cc[VEOF] : CONTROL_D;
}

/* Returns true when the descriptor took all bytes. */
static bool write_out(struct input *in) {
    while (in->buffer.size || in->eofs) {
        uint8_t eof = in->buffer.size ? 0 : eof_character(in->fd);
        ssize_t count = in->buffer.size ? write(in->fd, in->buffer.data, in->buffer.size) : write(in->fd, &eof, 1);
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) return false;
        if (in->buffer.size) consume(in, (size_t)count);
        else in->eofs--;
    }
    return true;
}

void input_flush(struct supervisor *s, struct process *p) {
    struct input *in = &p->input;
    if (in->fd < 0) return;
    bool all = write_out(in);
    if (!all && errno != EAGAIN) {
        input_close(p);
        return;
    }
    if (all && in->at_end && !(p->flags & SPAWN_PTY)) input_close(p);
    else watch_change(s, in->fd, WATCH_IN, p->number, all ? 0 : EPOLLOUT);
}

/* Writes what goes at once from where it is, when nothing waits before it. What is wrong is found by the next write. */
static size_t write_first(struct input *in, struct slice data) {
    if (in->buffer.size || in->eofs || !data.size) return 0;
    ssize_t count = write(in->fd, data.data, data.size);
    if (count <= 0) return 0;
    in->consumed += (uint32_t)count;
    return (size_t)count;
}

const char *input_add(struct supervisor *s, struct process *p, struct slice data) {
    struct input *in = &p->input;
    size_t unacknowledged = in->buffer.size - in->stale + in->consumed;
    if (unacknowledged + data.size > window_of(p)) return "there is more standard input than the window allows";
    if (in->fd < 0 || in->at_end) {
        in->consumed += (uint32_t)data.size;
        return NULL;
    }
    if (in->buffer.size + data.size > LEFTOVER_MAX) return "too much standard input is waiting";
    if (data.size) in->last = data.data[data.size - 1];
    size_t done = write_first(in, data);
    put_bytes(&in->buffer, data.data + done, data.size - done);
    if (in->buffer.failed) return "there is no memory left for standard input";
    input_flush(s, p);
    return NULL;
}

void input_end(struct supervisor *s, struct process *p) {
    struct input *in = &p->input;
    if (in->fd < 0 || in->at_end) return;
    if (p->flags & SPAWN_PTY) {
        /* After an unfinished line, the first EOF character only hands that line over. */
        in->eofs = (uint8_t)(in->last && in->last != '\n' && in->last != '\r' ? 2 : 1);
        in->last = 0;
    } else {
        in->at_end = true;
    }
    input_flush(s, p);
}
