/* Standard output, no faster than its reader takes it: one byte on standard input lets a piece more go out. Where it
   has a stream of its own it is free: it blocks while nobody reads, and the end of standard input says that nobody
   will. */
#ifndef TRANSFER_OUTLET_H
#define TRANSFER_OUTLET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void outlet_set_free(void);
bool outlet_is_free(void);
/* Each of these returns false when the reader has gone. */
bool outlet_write(const void *data, size_t size);
bool outlet_zeros(size_t size);
/* Bytes of a file; false also when there are fewer. */
bool outlet_file(int fd, uint64_t offset, uint64_t length);
/* The end: what is still in the buffer goes out. */
bool outlet_flush(void);

#endif
