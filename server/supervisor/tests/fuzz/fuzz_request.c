/* Each request's body: type, process, and what stands in the frame after them. */
#include "base/request.h"

#include <string.h>

#include "base/bytes.h"
#include "fuzz.h"

unsigned long fuzz_taken, fuzz_refused;

static void put_slice(struct buffer *out, struct slice s) { put_str(out, s.data, s.size); }

static void put_strings(struct buffer *out, const struct strings *list) {
    put_u32(out, list->count);
    put_bytes(out, list->bytes.data, list->bytes.size);
}

static void put_spawn(struct buffer *out, const struct spawn *s) {
    put_u16(out, s->flags);
    put_slice(out, s->user);
    put_u64(out, s->timeout_ms);
    put_u32(out, s->grace_ms);
    put_u64(out, s->spool);
    put_u64(out, s->credit);
    put_u16(out, s->rows);
    put_u16(out, s->cols);
    put_slice(out, s->cwd);
    put_strings(out, &s->argv);
    put_strings(out, &s->env);
    put_slice(out, s->tag);
    put_slice(out, s->prologue);
}

static void put_hello(struct buffer *out, const struct request *q) {
    put_u32(out, q->version);
    put_slice(out, q->token);
    put_u32(out, q->orphan_ttl_ms);
    put_u32(out, q->session);
    put_u64(out, q->position);
}

static void put_sudo(struct buffer *out, const struct sudo_request *s) {
    put_u8(out, s->flags);
    put_u64(out, s->capabilities);
    put_slice(out, s->user);
    put_slice(out, s->password);
}

static void put_stream(struct buffer *out, const struct request *q) {
    put_u8(out, q->stream);
    if (q->type != REQ_CREDIT) put_u64(out, q->cursor);
    if (q->type == REQ_READ) put_u32(out, q->size);
    else put_u64(out, q->credit);
}

/* The body that asks for what was parsed. */
static void put_body(struct buffer *out, const struct request *q) {
    switch (q->type) {
    case REQ_HELLO: put_hello(out, q); break;
    case REQ_SPAWN: put_spawn(out, &q->spawn); break;
    case REQ_SUDO: put_sudo(out, &q->sudo); break;
    case REQ_STDIN:
    case REQ_TUNNEL_DATA: put_bytes(out, q->data.data, q->data.size); break;
    case REQ_LISTEN:
        put_u16(out, q->port);
        put_u32(out, q->places);
        break;
    case REQ_ACCEPT: put_u32(out, q->places); break;
    case REQ_ACK: put_u64(out, q->position); break;
    case REQ_OPEN: put_u16(out, q->port); break;
    case REQ_SIGNAL: put_u8(out, q->signal); break;
    case REQ_KILL:
        put_u32(out, q->grace_ms);
        put_u8(out, q->reason);
        break;
    case REQ_SHUTDOWN: put_u32(out, q->grace_ms); break;
    case REQ_CREDIT:
    case REQ_ATTACH:
    case REQ_READ: put_stream(out, q); break;
    case REQ_TUNNEL_CREDIT:
    case REQ_STATE: put_u32(out, q->size); break;
    case REQ_RESIZE:
        put_u16(out, q->rows);
        put_u16(out, q->cols);
        break;
    default: break;
    }
}

/* The list as an array holds the same strings, in one piece that ends with NULL. */
static void check_strings(const struct strings *list) {
    char **copy = strings_copy(list);
    struct reader r = {list->bytes.data, list->bytes.size, false};
    fuzz_check(copy != NULL);
    for (uint32_t i = 0; i < list->count; i++) {
        struct slice value = get_str(&r);
        fuzz_check(copy[i] && strlen(copy[i]) == value.size && !memcmp(copy[i], value.data, value.size));
    }
    fuzz_check(!copy[list->count] && !r.failed && !r.left);
    free(copy);
}

static bool has_faultless_entries(const struct spawn *s) {
    char **env = strings_copy(&s->env);
    bool faultless = true;
    fuzz_check(env != NULL);
    for (char **at = env; *at; at++) faultless = faultless && **at != '=' && strchr(*at, '=');
    free(env);
    return faultless;
}

static void check_spawn(const struct spawn *s) {
    char *cwd = slice_copy(s->cwd);
    fuzz_check(cwd && strlen(cwd) == s->cwd.size);
    free(cwd);
    check_strings(&s->argv);
    check_strings(&s->env);
    bool sound = s->flags <= SPAWN_ALL && s->argv.count && s->tag.size <= TAG_MAX && has_faultless_entries(s);
    fuzz_check(!spawn_fault(s) == sound);
}

/* What the rest of the supervisor relies on. */
static void check_bounds(const struct request *q) {
    bool streamed = q->type == REQ_CREDIT || q->type == REQ_ATTACH || q->type == REQ_READ;
    fuzz_check(!streamed || q->stream == 1 || q->stream == 2);
    fuzz_check(q->type != REQ_READ || q->size <= READ_MAX);
    fuzz_check(q->type != REQ_TUNNEL_DATA || q->data.size <= TUNNEL_PIECE);
    fuzz_check(q->type != REQ_OPEN || (q->port && q->process && q->process < TUNNEL_ACCEPTED));
    fuzz_check(q->type != REQ_STDIN || q->data.size <= STDIN_MAX);
    fuzz_check(q->type != REQ_SIGNAL || (q->signal >= 1 && q->signal <= SIGNAL_MAX));
    if (q->type == REQ_SPAWN) check_spawn(&q->spawn);
    if (q->type != REQ_SUDO) return;
    const struct slice *password = &q->sudo.password;
    fuzz_check(password->size >= 1 && password->size <= PASSWORD_MAX);
    fuzz_check(!memchr(password->data, '\n', password->size) && !memchr(password->data, 0, password->size));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < FRAME_MIN_LENGTH) return 0;
    struct reader r = {data, size, false};
    struct frame frame = {.type = get_u8(&r), .process = get_u32(&r)};
    frame.body = r.at;
    frame.size = r.left;
    struct request q;
    if (request_parse(&frame, &q)) {
        fuzz_refused++;
        return 0;
    }
    fuzz_taken++;
    fuzz_check(q.type == frame.type && q.process == frame.process);
    check_bounds(&q);
    struct buffer again = {0};
    put_body(&again, &q);
    fuzz_check(again.size == frame.size && (!again.size || !memcmp(again.data, frame.body, again.size)));
    buffer_free(&again);
    return 0;
}
