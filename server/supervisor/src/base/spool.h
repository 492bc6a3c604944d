/* A spool keeps the last bytes of one output stream: a ring that drops its oldest bytes when it is full. */
#ifndef BASE_SPOOL_H
#define BASE_SPOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct spool {
    uint8_t *ring;
    size_t room, limit;  /* bytes that are mapped now; the most that may be kept */
    size_t head, size;   /* the place of the oldest byte; how many are kept */
    uint64_t total;      /* bytes that were ever written */
};

void spool_init(struct spool *s, uint64_t limit);
void spool_free(struct spool *s);
uint64_t spool_start(const struct spool *s);
/* Reads up to `most` bytes, bounded by the ring. Returns what read(2) would: 0 at the end, -1 with errno. */
ssize_t spool_read(struct spool *s, int fd, size_t most);
/* Makes room for up to `most` more bytes, and returns for how many there is some without dropping any from `cursor`
   on. */
size_t spool_vacancy(struct spool *s, uint64_t cursor, size_t most);
/* Points `parts` at up to `most` bytes from `offset` on, and returns how many there are. */
size_t spool_peek(const struct spool *s, uint64_t offset, size_t most, struct iovec parts[2]);

/* The budget bounds the memory of all spools together. */
void spool_set_budget(size_t bytes);
bool spool_over_budget(size_t more);

#endif
