#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

static const int64_t MS = 1000, SECOND = 1000000;
static const int64_t NEVER = INT64_MAX;

/* Returns microseconds of a clock that never jumps. */
static inline int64_t clock_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static inline int64_t clock_after(int64_t now, uint64_t ms) {
    return ms > (uint64_t)((NEVER - now) / 1000) ? NEVER : now + (int64_t)ms * 1000;
}

#endif
