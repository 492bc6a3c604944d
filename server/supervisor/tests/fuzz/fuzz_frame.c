/* The frame decoder: a stream of frames, as a connection's buffer holds it. */
#include "base/frame.h"

#include <string.h>

#include "base/bytes.h"
#include "fuzz.h"

unsigned long fuzz_taken, fuzz_refused;

/* A frame that has not come whole is never taken for one, wherever it was cut. */
static void cut(const uint8_t *data, size_t used) {
    struct frame frame;
    size_t ignored, places[] = {0, 1, 3, 4, 5, used / 2, used - 1};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        if (places[i] < used)
            fuzz_check(frame_next(data, places[i], FRAME_MAX_LENGTH, &frame, &ignored) == FRAME_PARTIAL);
}

/* What was decoded, encoded again, is what came. */
static void encode(const struct frame *frame, const uint8_t *data, size_t used) {
    struct buffer out = {0};
    size_t start = frame_begin(&out, (enum answer_type)frame->type, frame->process);
    put_bytes(&out, frame->body, frame->size);
    frame_end(&out, start);
    fuzz_check(start == 0 && out.size == used && !memcmp(out.data, data, used));
    buffer_drop_front(&out, FRAME_PREFIX);
    fuzz_check(out.size == frame->size && (!out.size || !memcmp(out.data, frame->body, out.size)));
    buffer_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct frame frame;
    enum frame_state state;
    for (size_t used; (state = frame_next(data, size, FRAME_MAX_LENGTH, &frame, &used)) == FRAME_WHOLE;) {
        fuzz_check(used >= FRAME_PREFIX && used <= size);
        fuzz_check(frame.body == data + FRAME_PREFIX && frame.size == used - FRAME_PREFIX);
        enum frame_state strict = frame_next(data, size, FRAME_MAX_HELLO, &frame, &used);
        fuzz_check(strict == (used - 4 <= FRAME_MAX_HELLO ? FRAME_WHOLE : FRAME_BAD));
        cut(data, used);
        encode(&frame, data, used);
        fuzz_taken++;
        data += used;
        size -= used;
    }
    fuzz_refused += state == FRAME_BAD;
    return 0;
}
