/* A growable buffer for writing frames, and a bounded reader for parsing them. */
#ifndef BASE_BYTES_H
#define BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buffer {
    uint8_t *data;
    size_t size, room;
    bool failed; /* memory ran out: the content must not be used */
};

bool buffer_reserve(struct buffer *b, size_t more);
void buffer_free(struct buffer *b);
void buffer_drop_front(struct buffer *b, size_t count);
void put_bytes(struct buffer *b, const void *data, size_t size);
void put_u8(struct buffer *b, uint8_t value);
void put_u16(struct buffer *b, uint16_t value);
void put_u32(struct buffer *b, uint32_t value);
void put_u64(struct buffer *b, uint64_t value);
void put_str(struct buffer *b, const void *data, size_t size);

struct slice {
    const uint8_t *data;
    size_t size;
};

struct reader {
    const uint8_t *at;
    size_t left;
    bool failed;
};

uint8_t get_u8(struct reader *r);
uint16_t get_u16(struct reader *r);
uint32_t get_u32(struct reader *r);
uint64_t get_u64(struct reader *r);
struct slice get_rest(struct reader *r);
/* Reads a string with its length in front; a NUL byte in it makes the reader fail. */
struct slice get_str(struct reader *r);
/* Returns a NUL-terminated copy, or NULL when memory runs out. */
char *slice_copy(struct slice value);

#endif
