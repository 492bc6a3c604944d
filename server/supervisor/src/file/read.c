#include "file/read.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "file/crc.h"
#include "file/regular.h"
#include "file/reply.h"
#include "file/where.h"

enum {
    KIND_WINDOW = 1,
    KIND_SAMPLE = 2,
    KIND_WHOLE = 3,
    SAMPLE = 8192,     /* bytes at the front that show what a file is */
    CHUNK = 64 << 10,
    LINE_SHOWN = 8000, /* bytes of one line that are shown; the rest is only counted */
    NUL_SHARE = 8,     /* one in so many bytes of the front may be NUL in what is read by lines */
};
static const int64_t WINDOW_LIMIT = 10000000; /* us to reach the wanted lines: several GB */
static const int64_t COUNT_LIMIT = 1000000;   /* us more to count the lines after them */
static const uint64_t UNKNOWN = UINT64_MAX;

/* The lines of a file that are shown, while the file is read. */
struct window {
    uint64_t first, lines;
    size_t budget;
    uint64_t line;       /* the line that is being read, from 1 */
    uint32_t shown;
    bool open, showing;  /* a line has begun; it is one of the lines to show */
    uint64_t total;      /* its bytes so far; how many of them are kept */
    size_t kept, header;
    struct buffer out;
    uint64_t crlf;       /* of all that was read: lines that end in CRLF, the checksum, the last byte */
    uint32_t crc;
    uint8_t last;
};

/* Reading such a file by lines has no end: the server looks at its front alone. */
static bool is_mostly_nul(const uint8_t *data, size_t size) {
    size_t nuls = 0;
    for (size_t i = 0; i < size; i++) nuls += !data[i];
    return nuls * NUL_SHARE > size;
}

static void set_number(struct buffer *b, size_t at, uint64_t value, size_t size) {
    if (b->failed) return;
    for (size_t i = 0; i < size; i++) b->data[at + i] = (uint8_t)(value >> (8 * i));
}

static void begin_line(struct window *w) {
    w->open = true;
    w->line++;
    w->total = w->kept = 0;
    w->showing = w->line >= w->first && w->shown < w->lines && w->out.size < w->budget;
    w->header = w->out.size;
    if (!w->showing) return;
    put_u32(&w->out, 0);
    put_u64(&w->out, 0);
}

static void end_line(struct window *w) {
    w->open = false;
    if (!w->showing) return;
    set_number(&w->out, w->header, w->kept, 4);
    set_number(&w->out, w->header + 4, w->total, 8);
    w->shown++;
}

static void take(struct window *w, const uint8_t *data, size_t size) {
    w->crc = crc_more(w->crc, data, size);
    for (const uint8_t *end = data + size, *stop; data < end; data = stop) {
        if (!w->open) begin_line(w);
        const uint8_t *newline = memchr(data, '\n', (size_t)(end - data));
        size_t count = (size_t)((newline ? newline : end) - data);
        stop = newline ? newline + 1 : end;
        w->total += count;
        if (w->showing) {
            size_t more = count < LINE_SHOWN - w->kept ? count : LINE_SHOWN - w->kept;
            put_bytes(&w->out, data, more);
            w->kept += more;
        }
        if (newline) w->crlf += (count ? newline[-1] : w->last) == '\r';
        if (newline) end_line(w);
        w->last = stop[-1];
    }
}

static bool is_full(const struct window *w) {
    return w->line >= w->first && !w->open && (w->shown == w->lines || w->out.size >= w->budget);
}

/* Returns 1 when the file was read to its end, 0 when only the wanted lines were, -1 for an error in errno, and -2
   when it took too long. */
static int read_lines(int fd, struct window *w) {
    static uint8_t chunk[CHUNK];
    int64_t begin = clock_now(), full = NEVER;
    for (;;) {
        int64_t now = clock_now();
        if (full == NEVER && is_full(w)) full = now;
        if (full != NEVER && now - full > COUNT_LIMIT) return 0;
        if (full == NEVER && now - begin > WINDOW_LIMIT) return -2;
        ssize_t count = read(fd, chunk, sizeof chunk);
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) return -1;
        if (count == 0) return 1;
        take(w, chunk, (size_t)count);
    }
}

static int refuse_way(int way, const struct window *w) {
    return way == -1 ? refuse_system("") : refuse(REFUSED_TIME, w->line, "");
}

/* Turns a line that was counted from the end (-1 is the last) into its number; returns a way as `read_lines`. */
static int from_end(int fd, int64_t back, struct window *w) {
    struct window all = {.first = UINT64_MAX};
    int way = read_lines(fd, &all);
    w->first = all.line >= (uint64_t)-back ? all.line - (uint64_t)-back + 1 : 1;
    w->line = way < 0 ? all.line : 0;
    if (way >= 0 && lseek(fd, 0, SEEK_SET)) way = -1;
    return way;
}

static int answer_lines(int fd, const struct stat *info, int64_t first, struct window *w, struct slice sample) {
    w->first = first > 0 ? (uint64_t)first : 1;
    int way = first < 0 ? from_end(fd, first, w) : 1;
    if (way >= 0) way = read_lines(fd, w);
    if (way < 0) return refuse_way(way, w);
    bool whole_line = !w->open;
    if (w->open) end_line(w);
    if (way == 1 && w->first > w->line && w->first > 1) return refuse(REFUSED_PAST_END, w->line, "");
    struct buffer reply = {0};
    put_u8(&reply, REPLY_DONE);
    put_u8(&reply, KIND_WINDOW);
    put_where(&reply, fd);
    put_u64(&reply, (uint64_t)info->st_size);
    put_str(&reply, sample.data, sample.size);
    put_u64(&reply, w->first);
    put_u64(&reply, way == 1 ? w->line : UNKNOWN);
    put_u64(&reply, w->crlf);
    put_u32(&reply, w->crc);
    put_u8(&reply, whole_line);
    put_u32(&reply, w->shown);
    put_bytes(&reply, w->out.data, w->out.size);
    reply.failed = reply.failed || w->out.failed;
    return reply_send(&reply);
}

static int answer_sample(int fd, const struct stat *info, struct slice sample) {
    struct buffer reply = {0};
    put_u8(&reply, REPLY_DONE);
    put_u8(&reply, KIND_SAMPLE);
    put_where(&reply, fd);
    put_u64(&reply, (uint64_t)info->st_size);
    put_str(&reply, sample.data, sample.size);
    return reply_send(&reply);
}

static int answer_whole(int fd, const struct buffer *data) {
    struct buffer reply = {0};
    put_u8(&reply, REPLY_DONE);
    put_u8(&reply, KIND_WHOLE);
    put_where(&reply, fd);
    put_u64(&reply, data->size);
    put_bytes(&reply, data->data, data->size);
    return reply_send(&reply);
}

int file_read(char **argv) {
    struct stat info;
    int fd = open_regular(argv[4], &info);
    if (fd < 0) return 0;
    size_t whole = strtoull(argv[3], NULL, 10);
    /* Files of the kernel say that they have no bytes, so only reading tells. */
    size_t most = info.st_size <= (off_t)whole ? whole : SAMPLE - 1;
    struct buffer data = {0};
    enum refusal why = read_whole(fd, most, &data);
    if (!why) return answer_whole(fd, &data);
    if (why != REFUSED_SIZE) return why == REFUSED_SYSTEM ? refuse_system("") : refuse(why, data.size, "");
    struct slice sample = {data.data, data.size < SAMPLE ? data.size : SAMPLE};
    if (is_mostly_nul(sample.data, sample.size)) return answer_sample(fd, &info, sample);
    struct window w = {.lines = strtoull(argv[1], NULL, 10), .budget = strtoull(argv[2], NULL, 10)};
    if (lseek(fd, 0, SEEK_SET)) return refuse_system("");
    return answer_lines(fd, &info, strtoll(argv[0], NULL, 10), &w, sample);
}

int file_fetch(char **argv) {
    struct stat info;
    int fd = open_regular(argv[1], &info);
    if (fd < 0) return 0;
    size_t most = strtoull(argv[0], NULL, 10);
    if (info.st_size > 0 && (uint64_t)info.st_size > most) return refuse(REFUSED_SIZE, (uint64_t)info.st_size, "");
    struct buffer data = {0};
    enum refusal why = read_whole(fd, most, &data);
    if (why == REFUSED_SYSTEM) return refuse_system("");
    return why ? refuse(why, data.size, "") : answer_whole(fd, &data);
}
