/* The last bytes of one output stream: a ring that drops its oldest bytes when it is full. */
#ifndef BASE_SPOOL_H
#define BASE_SPOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct spool {
    uint8_t *ring;
    size_t room, limit;  /* what is mapped now; what may be kept at most */
    size_t head, size;   /* where the oldest byte is; how many are kept */
    uint64_t total;      /* all that was ever written */
};

void spool_init(struct spool *s, uint64_t limit);
void spool_free(struct spool *s);
uint64_t spool_start(const struct spool *s);
/* Read up to `most` bytes (bounded by the ring) from a descriptor; as read(2): 0 at its end, -1 with errno. */
ssize_t spool_read(struct spool *s, int fd, size_t most);
/* Point `parts` at up to `most` bytes from `offset` on; how many bytes that is. */
size_t spool_peek(const struct spool *s, uint64_t offset, size_t most, struct iovec parts[2]);

/* All spools together: their bound, and what they hold now. */
void spool_set_budget(size_t bytes);
bool spool_over_budget(size_t more);

#endif
