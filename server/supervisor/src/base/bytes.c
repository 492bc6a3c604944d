#include "base/bytes.h"

#include <stdlib.h>
#include <string.h>

bool buffer_reserve(struct buffer *b, size_t more) {
    if (b->failed) return false;
    if (b->room - b->size >= more) return true;
    size_t room = b->room ? b->room : 4096;
    while (room - b->size < more) room *= 2;
    uint8_t *data = realloc(b->data, room);
    if (!data) {
        b->failed = true;
        return false;
    }
    b->data = data;
    b->room = room;
    return true;
}

void buffer_free(struct buffer *b) {
    free(b->data);
    *b = (struct buffer){0};
}

void buffer_drop_front(struct buffer *b, size_t count) {
    if (!count) return;
    b->size -= count;
    memmove(b->data, b->data + count, b->size);
}

void put_bytes(struct buffer *b, const void *data, size_t size) {
    if (!size || !buffer_reserve(b, size)) return;
    memcpy(b->data + b->size, data, size);
    b->size += size;
}

static void put_number(struct buffer *b, uint64_t value, size_t size) {
    uint8_t bytes[8];
    for (size_t i = 0; i < size; i++) bytes[i] = (uint8_t)(value >> (8 * i));
    put_bytes(b, bytes, size);
}

void put_u8(struct buffer *b, uint8_t value) { put_number(b, value, 1); }
void put_u16(struct buffer *b, uint16_t value) { put_number(b, value, 2); }
void put_u32(struct buffer *b, uint32_t value) { put_number(b, value, 4); }
void put_u64(struct buffer *b, uint64_t value) { put_number(b, value, 8); }

void put_str(struct buffer *b, const void *data, size_t size) {
    put_u32(b, (uint32_t)size);
    put_bytes(b, data, size);
}

static uint64_t get_number(struct reader *r, size_t size) {
    if (r->failed || r->left < size) {
        r->failed = true;
        return 0;
    }
    uint64_t value = 0;
    for (size_t i = 0; i < size; i++) value |= (uint64_t)r->at[i] << (8 * i);
    r->at += size;
    r->left -= size;
    return value;
}

uint8_t get_u8(struct reader *r) { return (uint8_t)get_number(r, 1); }
uint16_t get_u16(struct reader *r) { return (uint16_t)get_number(r, 2); }
uint32_t get_u32(struct reader *r) { return (uint32_t)get_number(r, 4); }
uint64_t get_u64(struct reader *r) { return get_number(r, 8); }

struct slice get_rest(struct reader *r) {
    struct slice rest = {r->at, r->failed ? 0 : r->left};
    r->at += rest.size;
    r->left -= rest.size;
    return rest;
}

struct slice get_str(struct reader *r) {
    size_t size = get_u32(r);
    if (r->failed || size > r->left || memchr(r->at, 0, size)) {
        r->failed = true;
        return (struct slice){r->at, 0};
    }
    struct slice value = {r->at, size};
    r->at += size;
    r->left -= size;
    return value;
}

char *slice_copy(struct slice value) {
    char *copy = malloc(value.size + 1);
    if (!copy) return NULL;
    memcpy(copy, value.data, value.size);
    copy[value.size] = 0;
    return copy;
}
