#include "expected.h"

#include "base/bytes.h"
#include "base/frame.h"
#include "base/spool.h"
#include "fuzz.h"
#include "init/table.h"

struct expected expected[NUMBERS];
struct supervisor s;

uint8_t byte_at(uint32_t number, int stream, uint64_t offset) {
    return (uint8_t)(offset * 31 + offset / 251 + number * 7 + (uint32_t)stream);
}

static void check_bytes(uint32_t number, uint8_t stream, uint64_t offset, struct slice bytes) {
    for (size_t i = 0; i < bytes.size; i++) fuzz_check(bytes.data[i] == byte_at(number, stream - 1, offset + i));
}

static void check_output(const struct frame *frame, struct reader *r) {
    uint8_t stream = get_u8(r);
    uint64_t offset = get_u64(r);
    struct slice bytes = get_rest(r);
    struct expected *e = &expected[frame->process];
    fuzz_check(!r->failed && (stream == 1 || stream == 2) && bytes.size && e->present);
    uint64_t start = spool_start(&table_find(&s, frame->process)->streams[stream - 1].spool);
    fuzz_check(offset == (e->next[stream - 1] > start ? e->next[stream - 1] : start));
    fuzz_check(bytes.size <= e->credit[stream - 1]);
    e->next[stream - 1] = offset + bytes.size;
    e->credit[stream - 1] -= bytes.size;
    check_bytes(frame->process, stream, offset, bytes);
}

static void check_data(const struct frame *frame, struct reader *r) {
    uint8_t stream = get_u8(r);
    uint64_t start = get_u64(r), total = get_u64(r), at = get_u64(r);
    struct slice bytes = get_rest(r);
    fuzz_check(!r->failed && start <= at && at + bytes.size <= total && bytes.size <= READ_MAX);
    if (stream) check_bytes(frame->process, stream, at, bytes);
    else fuzz_check(!expected[frame->process].present && !total);
}

static void check_listing(struct reader *r, size_t *listed) {
    bool last = get_u8(r);
    for (uint32_t count = get_u32(r); count; count--, ++*listed) {
        uint32_t number = get_u32(r);
        fuzz_check(number < NUMBERS && expected[number].present);
        fuzz_check(get_u8(r) <= 2);
        get_u32(r);
        for (int i = 0; i < 5; i++) get_u64(r);
        get_u8(r);
        get_u32(r);
        get_u8(r);
        get_u32(r);
        get_u64(r);
        get_u64(r);
        fuzz_check(get_str(r).size <= TAG_MAX && !r->failed);
    }
    fuzz_check(!r->left && (!last || *listed == s.process_count));
}

/* An end is told once, and after the output before it as far as there is credit. */
static void check_end(const struct frame *frame) {
    struct expected *e = &expected[frame->process];
    const struct process *p = table_find(&s, frame->process);
    fuzz_check(p && e->present && !e->gone && !(frame->type == ANS_EXIT && e->exited));
    for (int i = 0; i < STREAMS; i++) fuzz_check(!e->credit[i] || e->next[i] >= p->streams[i].gate);
    e->exited = true;
    e->gone = frame->type == ANS_GONE;
}

void check_answers(void) {
    struct buffer *out = &s.active->out;
    struct frame frame;
    size_t done = 0, used, listed = 0;
    while (frame_next(out->data + done, out->size - done, FRAME_MAX_ANSWER, &frame, &used) == FRAME_WHOLE) {
        struct reader r = {frame.body, frame.size, false};
        fuzz_check(frame.process < NUMBERS);
        if (frame.type == ANS_OUTPUT) check_output(&frame, &r);
        if (frame.type == ANS_DATA) check_data(&frame, &r);
        if (frame.type == ANS_LISTING) check_listing(&r, &listed);
        if (frame.type == ANS_EXIT || frame.type == ANS_GONE) check_end(&frame);
        done += used;
        fuzz_taken++;
    }
    fuzz_check(done == out->size && !out->failed);
    buffer_drop_front(out, done);
}
