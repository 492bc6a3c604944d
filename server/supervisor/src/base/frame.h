/* Frames of the protocol. Nothing here does I/O: bytes go in, frames come out. */
#ifndef BASE_FRAME_H
#define BASE_FRAME_H

#include "base/bytes.h"
#include "base/protocol.h"

enum {
    FRAME_PREFIX = 9,             /* length, type, process */
    FRAME_MIN_LENGTH = 5,         /* type, process */
    FRAME_MAX_LENGTH = 4 << 20,   /* to the supervisor: the most words that Linux takes, with their lengths, fit */
    FRAME_MAX_ANSWER = 1 << 17,   /* from it */
    FRAME_MAX_HELLO = 128,        /* the most that a client without a token may make us buffer */
};

struct frame {
    uint8_t type;
    uint32_t process;
    const uint8_t *body;
    size_t size;
};

enum frame_state { FRAME_PARTIAL, FRAME_WHOLE, FRAME_BAD };

/* Decodes the frame at the front of `data`; `used` becomes its size on the wire. */
enum frame_state frame_next(const uint8_t *data, size_t size, size_t max_length, struct frame *frame, size_t *used);

/* Begins a frame in `out`; pass the returned offset to `frame_end` when the body has been written. */
size_t frame_begin(struct buffer *out, enum answer_type type, uint32_t process);
void frame_end(struct buffer *out, size_t start);

#endif
