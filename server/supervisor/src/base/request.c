#include "base/request.h"

#include <stdlib.h>
#include <string.h>

static struct strings get_strings(struct reader *r) {
    struct strings list = {get_u32(r), {r->at, 0}};
    /* Each string takes at least four bytes, so a huge count fails here and not after a long loop. */
    if (list.count > r->left / 4) r->failed = true;
    list.bytes.data = r->at;
    for (uint32_t i = 0; i < list.count && !r->failed; i++) get_str(r);
    list.bytes.size = (size_t)(r->at - list.bytes.data);
    return list;
}

static void parse_spawn(struct reader *r, struct spawn *s) {
    s->flags = get_u16(r);
    s->user = get_str(r);
    s->timeout_ms = get_u64(r);
    s->grace_ms = get_u32(r);
    s->spool = get_u64(r);
    s->credit = get_u64(r);
    s->rows = get_u16(r);
    s->cols = get_u16(r);
    s->cwd = get_str(r);
    s->argv = get_strings(r);
    s->env = get_strings(r);
    s->tag = get_str(r);
    s->prologue = get_str(r);
}

static const char *parse_stream(struct reader *r, struct request *q) {
    q->stream = get_u8(r);
    if (q->type == REQ_ATTACH) q->cursor = get_u64(r);
    q->credit = get_u64(r);
    return r->failed || q->stream == 1 || q->stream == 2 ? NULL : "there is no such stream";
}

static const char *parse_read(struct reader *r, struct request *q) {
    q->stream = get_u8(r);
    q->cursor = get_u64(r);
    q->size = get_u32(r);
    if (r->failed) return NULL;
    if (q->size > READ_MAX) return "a READ asks for too much";
    return q->stream == 1 || q->stream == 2 ? NULL : "there is no such stream";
}

static void parse_hello(struct reader *r, struct request *q) {
    q->version = get_u32(r);
    q->token = get_str(r);
    q->orphan_ttl_ms = get_u32(r);
    q->session = get_u32(r);
    q->position = get_u64(r);
}

static const char *parse_sudo(struct reader *r, struct sudo_request *s) {
    s->flags = get_u8(r);
    s->capabilities = get_u64(r);
    s->user = get_str(r);
    s->password = get_str(r);
    if (r->failed) return NULL;
    bool sized = s->password.size >= 1 && s->password.size <= PASSWORD_MAX;
    return sized && !memchr(s->password.data, '\n', s->password.size) ? NULL : "a password has a wrong form";
}

static const char *parse_listen(struct reader *r, struct request *q) {
    q->port = get_u16(r);
    q->places = get_u32(r);
    return NULL;
}

static const char *parse_open(struct reader *r, struct request *q) {
    q->port = get_u16(r);
    if (r->failed) return NULL;
    if (!q->process || q->process >= TUNNEL_ACCEPTED) return "a tunnel's number is out of bounds";
    return q->port ? NULL : "there is no such port";
}

static const char *parse_tunnel(struct reader *r, struct request *q) {
    switch (q->type) {
    case REQ_LISTEN: return parse_listen(r, q);
    case REQ_ACCEPT: q->places = get_u32(r); return NULL;
    case REQ_OPEN: return parse_open(r, q);
    case REQ_TUNNEL_DATA:
        q->data = get_rest(r);
        return q->data.size <= TUNNEL_PIECE ? NULL : "a TUNNEL_DATA frame is too large";
    case REQ_TUNNEL_CREDIT: q->size = get_u32(r); return NULL;
    case REQ_TUNNEL_END:
    case REQ_TUNNEL_RESET: return NULL;
    default: return "a frame has an unknown type";
    }
}

static const char *parse_body(struct reader *r, struct request *q) {
    switch (q->type) {
    case REQ_HELLO: parse_hello(r, q); return NULL;
    case REQ_SPAWN: parse_spawn(r, &q->spawn); return NULL;
    case REQ_SUDO: return parse_sudo(r, &q->sudo);
    case REQ_STDIN:
        q->data = get_rest(r);
        return q->data.size <= STDIN_MAX ? NULL : "a STDIN frame is too large";
    case REQ_SIGNAL:
        q->signal = get_u8(r);
        return r->failed || (q->signal >= 1 && q->signal <= SIGNAL_MAX) ? NULL : "there is no such signal";
    case REQ_KILL:
        q->grace_ms = get_u32(r);
        q->reason = get_u8(r);
        return r->failed || q->reason == REASON_KILL || q->reason == REASON_CANCEL ? NULL : "there is no such reason";
    case REQ_SHUTDOWN: q->grace_ms = get_u32(r); return NULL;
    case REQ_CREDIT:
    case REQ_ATTACH: return parse_stream(r, q);
    case REQ_READ: return parse_read(r, q);
    case REQ_STATE: q->size = get_u32(r); return NULL;
    case REQ_ACK: q->position = get_u64(r); return NULL;
    case REQ_RESIZE:
        q->rows = get_u16(r);
        q->cols = get_u16(r);
        return NULL;
    case REQ_STDIN_EOF:
    case REQ_LIST:
    case REQ_NO_REPORT:
    case REQ_FORGET:
    case REQ_PING: return NULL;
    default: return parse_tunnel(r, q);
    }
}

const char *request_parse(const struct frame *frame, struct request *request) {
    *request = (struct request){.type = frame->type, .process = frame->process};
    struct reader r = {frame->body, frame->size, false};
    const char *fault = parse_body(&r, request);
    if (fault) return fault;
    return r.failed || r.left ? "a frame's body does not parse" : NULL;
}

const char *spawn_fault(const struct spawn *q) {
    if (q->flags & ~SPAWN_ALL) return "the request has an unknown flag";
    if (!q->argv.count) return "the request names no program";
    if (q->tag.size > TAG_MAX) return "the tag is too long";
    struct reader r = {q->env.bytes.data, q->env.bytes.size, false};
    for (uint32_t i = 0; i < q->env.count; i++) {
        struct slice entry = get_str(&r);
        const uint8_t *equals = memchr(entry.data, '=', entry.size);
        if (!equals || equals == entry.data) return "an entry of the environment is no 'KEY=value'";
    }
    return NULL;
}

char **strings_copy(const struct strings *list) {
    /* The text takes less room than in the frame: a NUL at its end replaces four bytes of length. */
    size_t pointers = (list->count + (size_t)1) * sizeof(char *);
    char **copy = malloc(pointers + list->bytes.size + 1);
    if (!copy) return NULL;
    char *text = (char *)copy + pointers;
    struct reader r = {list->bytes.data, list->bytes.size, false};
    for (uint32_t i = 0; i < list->count; i++) {
        struct slice value = get_str(&r);
        copy[i] = text;
        memcpy(text, value.data, value.size);
        text[value.size] = 0;
        text += value.size + 1;
    }
    copy[list->count] = NULL;
    return copy;
}
