#include "base/frame.h"

enum frame_state frame_next(const uint8_t *data, size_t size, size_t max_length, struct frame *frame, size_t *used) {
    struct reader r = {data, size, false};
    size_t length = get_u32(&r);
    if (r.failed) return FRAME_PARTIAL;
    if (length < FRAME_MIN_LENGTH || length > max_length) return FRAME_BAD;
    if (r.left < length) return FRAME_PARTIAL;
    frame->type = get_u8(&r);
    frame->process = get_u32(&r);
    frame->body = r.at;
    frame->size = length - FRAME_MIN_LENGTH;
    *used = 4 + length;
    return FRAME_WHOLE;
}

size_t frame_begin(struct buffer *out, enum answer_type type, uint32_t process) {
    size_t start = out->size;
    put_u32(out, 0);
    put_u8(out, (uint8_t)type);
    put_u32(out, process);
    return start;
}

void frame_end(struct buffer *out, size_t start) {
    if (out->failed) return;
    uint32_t length = (uint32_t)(out->size - start - 4);
    for (size_t i = 0; i < 4; i++) out->data[start + i] = (uint8_t)(length >> (8 * i));
}
