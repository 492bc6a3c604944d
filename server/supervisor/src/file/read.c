#include "file/read.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "file/regular.h"
#include "file/reply.h"

enum {
    KIND_TEXT = 1,
    KIND_BINARY = 2,
    KIND_WHOLE = 3,
    SAMPLE = 8192,     /* bytes at the front that decide what a file is */
    CHUNK = 64 << 10,
    LINE_SHOWN = 8000,   /* bytes of one line that are shown; the rest is only counted */
    STRANGE_SHARE = 3, /* one in so many bytes of the sample may be strange in a text */
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
};

static bool is_picture(const uint8_t *data, size_t size) {
    if (size >= 8 && !memcmp(data, "\x89PNG\r\n\x1a\n", 8)) return true;
    if (size >= 3 && !memcmp(data, "\xff\xd8\xff", 3)) return true;
    if (size >= 6 && (!memcmp(data, "GIF87a", 6) || !memcmp(data, "GIF89a", 6))) return true;
    return size >= 12 && !memcmp(data, "RIFF", 4) && !memcmp(data + 8, "WEBP", 4);
}

/* Returns the bytes of the UTF-8 character (RFC 3629) that begins at `at`, or 0 when none does. */
static size_t character(const uint8_t *at, size_t left) {
    size_t size = *at < 0x80 ? 1 : *at < 0xC2 ? 0 : *at < 0xE0 ? 2 : *at < 0xF0 ? 3 : *at < 0xF5 ? 4 : 0;
    if (size > left) return 0;
    for (size_t i = 1; i < size; i++)
        if ((at[i] & 0xC0) != 0x80) return 0;
    return size;
}

/* A text holds no NUL byte, and few control characters or bytes that are not UTF-8. */
static bool is_binary(const uint8_t *data, size_t size) {
    size_t strange = 0;
    for (size_t i = 0; i < size;) {
        size_t length = character(data + i, size - i);
        if (!data[i]) return true;
        if (!length || (data[i] < 0x20 && !strchr("\t\n\v\f\r\b\x1b", data[i]))) strange++;
        i += length ? length : 1;
    }
    return strange * STRANGE_SHARE > size;
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
        if (newline) end_line(w);
    }
}

static bool is_full(const struct window *w) {
    return w->line >= w->first && !w->open && (w->shown == w->lines || w->out.size >= w->budget);
}

/* Returns 1 when the file was read to its end, 0 when only the wanted lines were, -1 for an error in errno, and -2
   when it took too long. */
static int read_lines(int fd, struct window *w, const uint8_t *sample, size_t size) {
    static uint8_t chunk[CHUNK];
    int64_t begin = clock_now(), full = NEVER;
    take(w, sample, size);
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

static int answer_lines(int fd, const struct stat *info, struct window *w, const uint8_t *sample, size_t size) {
    int way = read_lines(fd, w, sample, size);
    if (way == -1) return refuse_system("");
    if (way == -2) return refuse(REFUSED_TIME, w->line, "");
    bool whole_line = !w->open;
    if (w->open) end_line(w);
    if (way == 1 && w->first > w->line && w->first > 1) return refuse(REFUSED_PAST_END, w->line, "");
    struct buffer reply = {0};
    put_u8(&reply, REPLY_DONE);
    put_u8(&reply, KIND_TEXT);
    put_u64(&reply, (uint64_t)info->st_size);
    put_u64(&reply, way == 1 ? w->line : UNKNOWN);
    put_u8(&reply, whole_line);
    put_u32(&reply, w->shown);
    put_bytes(&reply, w->out.data, w->out.size);
    reply.failed = reply.failed || w->out.failed;
    return reply_send(&reply);
}

static int answer_binary(const struct stat *info) {
    struct buffer reply = {0};
    put_u8(&reply, REPLY_DONE);
    put_u8(&reply, KIND_BINARY);
    put_u64(&reply, (uint64_t)info->st_size);
    return reply_send(&reply);
}

static int answer_whole(int fd, const struct stat *info, size_t most, const uint8_t *sample, size_t size) {
    struct buffer data = {0}, reply = {0};
    if (info->st_size > 0 && (uint64_t)info->st_size > most) return refuse(REFUSED_SIZE, (uint64_t)info->st_size, "");
    put_bytes(&data, sample, size);
    enum refusal why = read_whole(fd, most, &data);
    if (why == REFUSED_SYSTEM) return refuse_system("");
    if (why) return refuse(why, data.size, "");
    put_u8(&reply, REPLY_DONE);
    put_u8(&reply, KIND_WHOLE);
    put_u64(&reply, data.size);
    put_bytes(&reply, data.data, data.size);
    return reply_send(&reply);
}

static ssize_t read_sample(int fd, uint8_t *sample) {
    size_t size = 0;
    for (ssize_t count; size < SAMPLE; size += (size_t)count) {
        count = read(fd, sample + size, SAMPLE - size);
        if (count == 0) break;
        if (count < 0 && errno != EINTR) return -1;
        if (count < 0) count = 0;
    }
    return (ssize_t)size;
}

int file_read(char **argv) {
    static uint8_t sample[SAMPLE];
    struct stat info;
    int fd = open_regular(argv[4], &info);
    if (fd < 0) return 0;
    ssize_t size = read_sample(fd, sample);
    if (size < 0) return refuse_system("");
    uint64_t most = strtoull(argv[3], NULL, 10);
    if (is_picture(sample, (size_t)size)) return answer_whole(fd, &info, most, sample, (size_t)size);
    if (is_binary(sample, (size_t)size)) return answer_binary(&info);
    struct window w = {.first = strtoull(argv[0], NULL, 10), .lines = strtoull(argv[1], NULL, 10)};
    w.budget = strtoull(argv[2], NULL, 10);
    return answer_lines(fd, &info, &w, sample, (size_t)size);
}

int file_fetch(char **argv) {
    struct stat info;
    int fd = open_regular(argv[1], &info);
    return fd < 0 ? 0 : answer_whole(fd, &info, strtoull(argv[0], NULL, 10), NULL, 0);
}
