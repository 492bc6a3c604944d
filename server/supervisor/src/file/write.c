#include "file/write.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "file/regular.h"
#include "file/reply.h"
#include "file/target.h"

enum {
    EDIT_MAX = 16 << 20, /* bytes of a file, which is edited in memory */
    INPUT_MAX = 16 << 20,
    PLACES_MAX = 1000000, /* of the old text; more are not even counted */
    RESULT_MAX = 64 << 20,
    SHOWN_PLACES = 20, /* that a reply shows; more are only counted */
    SHOWN_TEXT = 160,  /* bytes of a place's line */
};

/* Reads exactly `size` bytes of standard input: what a lost connection cut off must not become a file. Returns false
   when the refusal has been written. */
static bool read_input(size_t size, struct buffer *out) {
    enum refusal why = size > INPUT_MAX ? REFUSED_SIZE : read_whole(STDIN_FILENO, size, out);
    if (why == REFUSED_SYSTEM) return refuse_system("standard input"), false;
    if (!why && out->size != size) why = REFUSED_INPUT;
    return why ? refuse(why, out->size, ""), false : true;
}

int file_write(char **argv) {
    struct buffer data = {0}, reply = {0};
    struct target t;
    if (!read_input(strtoull(argv[0], NULL, 10), &data) || !target_find(argv[1], true, &t)) return 0;
    int told = target_replace(&t, data.data, data.size, false);
    target_close(&t);
    if (told >= 0) return told;
    put_u8(&reply, REPLY_DONE);
    put_u8(&reply, t.exists);
    return reply_send(&reply);
}

/* --- edit ------------------------------------------------------------------------------------------------------- */

static size_t count_lines(const uint8_t *data, size_t size) {
    size_t lines = 0;
    for (const uint8_t *end = data + size; (data = memchr(data, '\n', (size_t)(end - data))); data++) lines++;
    return lines;
}

/* Returns whether there are lines and each of them ends in CRLF. */
static bool has_crlf(const struct buffer *b) {
    const uint8_t *at = b->data, *end = at + b->size;
    bool found = false;
    while (at < end && (at = memchr(at, '\n', (size_t)(end - at)))) {
        if (at == b->data || at[-1] != '\r') return false;
        found = true;
        at++;
    }
    return found;
}

/* Writes the text with CRLF for each LF that has no CR. */
static void to_crlf(struct slice from, struct buffer *out) {
    for (size_t i = 0; i < from.size; i++) {
        if (from.data[i] == '\n' && (i == 0 || from.data[i - 1] != '\r')) put_u8(out, '\r');
        put_u8(out, from.data[i]);
    }
}

static bool is_blank(uint8_t byte) { return byte == ' ' || (byte >= '\t' && byte <= '\r'); }

/* Writes the text without blanks; `origin` (or NULL) gets the place in `from` of each byte. */
static void squeeze(struct slice from, struct buffer *out, struct buffer *origin) {
    for (size_t i = 0; i < from.size; i++) {
        if (is_blank(from.data[i])) continue;
        put_u8(out, from.data[i]);
        if (origin) put_u32(origin, (uint32_t)i);
    }
}

/* Returns the line where the same text begins but for its blanks, or 0. */
static uint64_t near_line(struct slice text, struct slice old) {
    struct buffer all = {0}, wanted = {0}, origin = {0};
    squeeze(text, &all, &origin);
    squeeze(old, &wanted, NULL);
    const uint8_t *at = NULL;
    if (all.size && wanted.size && !origin.failed && !all.failed && !wanted.failed)
        at = memmem(all.data, all.size, wanted.data, wanted.size);
    uint64_t line = 0;
    if (at) {
        struct reader r = {origin.data + 4 * (size_t)(at - all.data), 4, false};
        line = count_lines(text.data, get_u32(&r)) + 1;
    }
    buffer_free(&all);
    buffer_free(&wanted);
    buffer_free(&origin);
    return line;
}

/* The places of a text; `starts` holds u64 offsets. Overlapping places count, because each of them could be meant. */
struct places {
    struct buffer starts;
    uint64_t count;
    bool overlap;
};

static void find_places(struct slice text, struct slice old, struct places *found) {
    const uint8_t *at = text.data, *end = text.data + text.size, *last = NULL;
    while (at < end && found->count <= PLACES_MAX && (at = memmem(at, (size_t)(end - at), old.data, old.size))) {
        if (last && (size_t)(at - last) < old.size) found->overlap = true;
        put_u64(&found->starts, (uint64_t)(at - text.data));
        found->count++;
        last = at++;
    }
}

static uint64_t start_of(const struct places *found, uint64_t index) {
    struct reader r = {found->starts.data + 8 * index, 8, false};
    return get_u64(&r);
}

/* Writes the first places: the number of each one's line, and with `texts` the line itself. */
static void put_places(struct buffer *reply, struct slice text, const struct places *found, bool texts) {
    uint64_t shown = found->count < SHOWN_PLACES ? found->count : SHOWN_PLACES, line = 1, from = 0;
    put_u32(reply, (uint32_t)shown);
    for (uint64_t i = 0; i < shown; i++) {
        uint64_t at = start_of(found, i), begin = at;
        line += count_lines(text.data + from, at - from);
        from = at;
        put_u32(reply, (uint32_t)line);
        if (!texts) continue;
        while (begin && text.data[begin - 1] != '\n') begin--;
        const uint8_t *end = memchr(text.data + at, '\n', text.size - at);
        size_t size = (size_t)(end ? end - text.data : (ptrdiff_t)text.size) - begin;
        put_u32(reply, (uint32_t)(size < SHOWN_TEXT ? size : SHOWN_TEXT));
        put_bytes(reply, text.data + begin, size < SHOWN_TEXT ? size : SHOWN_TEXT);
    }
}

static int refuse_places(struct slice text, const struct places *found) {
    struct buffer reply = {0};
    put_u8(&reply, REPLY_REFUSED);
    put_u8(&reply, REFUSED_PLACES);
    put_u32(&reply, 0);
    put_u64(&reply, found->count);
    put_str(&reply, "", 0);
    put_places(&reply, text, found, true);
    return reply_send(&reply);
}

static int replace_places(struct target *t, struct slice text, struct slice old, struct slice new,
                          const struct places *found) {
    struct buffer made = {0}, reply = {0};
    size_t from = 0, size = text.size + found->count * new.size - found->count * old.size;
    if (size > RESULT_MAX) return refuse(REFUSED_SIZE, size, "");
    for (uint64_t i = 0; i < found->count; i++) {
        size_t at = start_of(found, i);
        put_bytes(&made, text.data + from, at - from);
        put_bytes(&made, new.data, new.size);
        from = at + old.size;
    }
    put_bytes(&made, text.data + from, text.size - from);
    if (made.failed) return refuse(REFUSED_SIZE, text.size, "");
    int told = target_replace(t, made.data, made.size, true);
    if (told >= 0) return told;
    put_u8(&reply, REPLY_DONE);
    put_u64(&reply, made.size);
    put_places(&reply, text, found, false);
    return reply_send(&reply);
}

static int edit(struct target *t, uint64_t count, struct slice old, struct slice new) {
    struct buffer text = {0}, long_old = {0}, long_new = {0};
    enum refusal why = read_whole(t->file, EDIT_MAX, &text);
    if (why == REFUSED_SYSTEM) return refuse_system("");
    if (why) return refuse(why, (uint64_t)t->info.st_size, "");
    if (has_crlf(&text)) {
        to_crlf(old, &long_old);
        to_crlf(new, &long_new);
        if (long_old.failed || long_new.failed) return refuse(REFUSED_SIZE, text.size, "");
        old = (struct slice){long_old.data, long_old.size};
        new = (struct slice){long_new.data, long_new.size};
    }
    struct slice whole = {text.data, text.size};
    struct places found = {0};
    find_places(whole, old, &found);
    if (found.starts.failed) return refuse(REFUSED_SIZE, text.size, "");
    if (!found.count) return refuse(REFUSED_ABSENT, near_line(whole, old), "");
    if (found.count != count) return refuse_places(whole, &found);
    if (found.overlap) return refuse(REFUSED_OVERLAP, found.count, "");
    return replace_places(t, whole, old, new, &found);
}

int file_edit(char **argv) {
    size_t old = strtoull(argv[1], NULL, 10), new = strtoull(argv[2], NULL, 10);
    struct buffer input = {0};
    struct target t;
    if (!old || old > INPUT_MAX || new > INPUT_MAX) return refuse(REFUSED_SIZE, old + new, "");
    if (!read_input(old + new, &input) || !target_find(argv[3], false, &t)) return 0;
    struct slice from = {input.data, old}, to = {input.data + old, new};
    int code;
    if (t.file >= 0) {
        code = edit(&t, strtoull(argv[0], NULL, 10), from, to);
    } else {
        /* It is not there or may not be read: opening it tells which. */
        struct stat info;
        code = open_regular(argv[3], &info) < 0 ? 0 : refuse(REFUSED_CHANGED, 0, "");
    }
    target_close(&t);
    return code;
}
