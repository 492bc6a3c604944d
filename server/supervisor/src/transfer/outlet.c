#include "transfer/outlet.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

enum {
    PIECE = 256 << 10, /* bytes that one byte of standard input allows */
    WINDOW = 4,        /* pieces that are on their way before the first answer */
    PIPE_SIZE = 1 << 20, /* bytes: fewer switches between us and who reads; the kernel may say no */
};

static char buffer[PIECE];
static size_t held;
static long allowed = WINDOW;
static bool is_free;

void outlet_set_free(void) {
    is_free = true;
    fcntl(STDIN_FILENO, F_SETPIPE_SZ, PIPE_SIZE);
    fcntl(STDOUT_FILENO, F_SETPIPE_SZ, PIPE_SIZE);
}

bool outlet_is_free(void) { return is_free; }

static bool has_reader(void) {
    struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
    char byte;
    return poll(&p, 1, 0) <= 0 || read(STDIN_FILENO, &byte, 1) > 0;
}

static bool wait_for_reader(void) {
    if (is_free) return has_reader();
    while (allowed <= 0) {
        char answers[64];
        ssize_t count = read(STDIN_FILENO, answers, sizeof answers);
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) return false;
        allowed += count;
    }
    allowed--;
    return true;
}

bool outlet_flush(void) {
    if (held && !wait_for_reader()) return false;
    for (size_t done = 0; done < held;) {
        ssize_t count = write(STDOUT_FILENO, buffer + done, held - done);
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) return false;
        done += (size_t)count;
    }
    held = 0;
    return true;
}

bool outlet_write(const void *data, size_t size) {
    for (const char *at = data; size;) {
        size_t more = size < sizeof buffer - held ? size : sizeof buffer - held;
        memcpy(buffer + held, at, more);
        held += more;
        at += more;
        size -= more;
        if (held == sizeof buffer && !outlet_flush()) return false;
    }
    return true;
}

bool outlet_zeros(size_t size) {
    static const char zeros[4096];
    for (; size; size -= size < sizeof zeros ? size : sizeof zeros)
        if (!outlet_write(zeros, size < sizeof zeros ? size : sizeof zeros)) return false;
    return true;
}

/* Moves a file's pages into the pipe, without a copy, as far as the kernel does that. */
static void pass_pages(int fd, uint64_t *offset, uint64_t *length) {
    if (held && !outlet_flush()) return;
    while (*length && has_reader()) {
        off_t at = (off_t)*offset;
        size_t most = *length < PIPE_SIZE ? (size_t)*length : PIPE_SIZE;
        ssize_t count = splice(fd, &at, STDOUT_FILENO, NULL, most, SPLICE_F_MORE);
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) return;
        *offset += (uint64_t)count;
        *length -= (uint64_t)count;
    }
}

bool outlet_file(int fd, uint64_t offset, uint64_t length) {
    if (is_free && length >= PIECE) pass_pages(fd, &offset, &length);
    while (length) {
        size_t room = sizeof buffer - held;
        ssize_t count = pread(fd, buffer + held, length < room ? (size_t)length : room, (off_t)offset);
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) break; /* it became shorter: the reader misses bytes, and knows */
        held += (size_t)count;
        offset += (uint64_t)count;
        length -= (uint64_t)count;
        if (held == sizeof buffer && !outlet_flush()) return false;
    }
    return !length;
}
