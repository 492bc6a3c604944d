#include "base/spool.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    ROOM_FIRST = 64 << 10, /* most commands print less than this */
    ROOM_FREE = 16 << 10,  /* a ring with less room than this grows before it is read into */
    LIMIT_MIN = 4 << 10,   /* one read fills the ring at most: a tiny ring would cost many calls */
    LIMIT_MAX = 256 << 20, /* more of one stream helps nobody */
};

static size_t budget = 1U << 28, mapped;

void spool_set_budget(size_t bytes) { budget = bytes; }
bool spool_over_budget(size_t more) { return more > budget || mapped > budget - more; }

void spool_init(struct spool *s, uint64_t limit) {
    *s = (struct spool){.limit = limit > LIMIT_MAX ? LIMIT_MAX : limit < LIMIT_MIN ? LIMIT_MIN : (size_t)limit};
}

void spool_free(struct spool *s) {
    if (s->ring) {
        munmap(s->ring, s->room);
        mapped -= s->room;
    }
    s->ring = NULL;
    s->room = s->head = s->size = 0;
}

uint64_t spool_start(const struct spool *s) { return s->total - s->size; }

static void copy_out(const struct spool *s, uint8_t *to) {
    size_t first = s->room - s->head < s->size ? s->room - s->head : s->size;
    memcpy(to, s->ring + s->head, first);
    memcpy(to + first, s->ring, s->size - first);
}

static bool grow(struct spool *s) {
    size_t room = s->room ? s->room * 2 : ROOM_FIRST;
    if (room > s->limit) room = s->limit;
    /* The first piece is allocated whatever the budget says: without it, output could not be read at all. */
    if (s->room && spool_over_budget(room - s->room)) return false;
    uint8_t *ring = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (ring == MAP_FAILED) return false;
    /* A fork does not copy the ring: it stays cheap, and no process sees the output of another. */
    madvise(ring, room, MADV_DONTFORK);
    size_t size = s->size;
    if (s->ring) copy_out(s, ring);
    spool_free(s);
    s->ring = ring;
    s->room = room;
    s->size = size;
    mapped += room;
    return true;
}

static size_t parts_at(const struct spool *s, size_t at, size_t size, struct iovec parts[2]) {
    size_t first = s->room - at < size ? s->room - at : size;
    parts[0] = (struct iovec){s->ring + at, first};
    parts[1] = (struct iovec){s->ring, size - first};
    return size;
}

/* There is no memory at all. The process must not block for that, so its output is read, counted and lost. */
static ssize_t read_away(struct spool *s, int fd) {
    uint8_t lost[4096];
    ssize_t count = read(fd, lost, sizeof lost);
    if (count > 0) s->total += (uint64_t)count;
    return count;
}

/* Grows the ring for `most` more bytes; returns false when it is as large as it may be. */
static bool make_room(struct spool *s, size_t most) {
    size_t wanted = most < ROOM_FREE ? most : ROOM_FREE;
    while (s->room - s->size < wanted)
        if (s->room == s->limit || !grow(s)) return false;
    return true;
}

ssize_t spool_read(struct spool *s, int fd, size_t most) {
    /* A full ring is overwritten from its oldest byte. */
    size_t room = make_room(s, most) ? s->room - s->size : s->room;
    if (!s->ring) return read_away(s, fd);
    struct iovec parts[2];
    parts_at(s, (s->head + s->size) % s->room, most < room ? most : room, parts);
    ssize_t count = readv(fd, parts, parts[1].iov_len ? 2 : 1);
    if (count <= 0) return count;
    size_t got = (size_t)count, over = s->size + got > s->room ? s->size + got - s->room : 0;
    s->head = (s->head + over) % s->room;
    s->size += got - over;
    s->total += got;
    return count;
}

size_t spool_vacancy(struct spool *s, uint64_t cursor, size_t most) {
    make_room(s, most);
    uint64_t start = spool_start(s), wanted = s->total - (cursor > start ? cursor : start);
    size_t vacancy = s->room > wanted ? s->room - (size_t)wanted : 0;
    return vacancy < most ? vacancy : most;
}

size_t spool_peek(const struct spool *s, uint64_t offset, size_t most, struct iovec parts[2]) {
    uint64_t start = spool_start(s);
    if (offset < start || offset >= s->total) return 0;
    size_t skip = (size_t)(offset - start), left = s->size - skip;
    return parts_at(s, (s->head + skip) % s->room, left < most ? left : most, parts);
}
