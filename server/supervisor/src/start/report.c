#include "start/report.h"

#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* The file holds a u32 size, then the directory and the entries of the environment, each with a NUL at its end. */
enum { HEADER = 4 };
static const int SEALS = F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL;

extern char **environ;

int report_create(void) {
    int fd = memfd_create("taskcell-state", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) return -1;
    if (ftruncate(fd, HEADER + REPORT_MAX) == 0 && fcntl(fd, F_ADD_SEALS, SEALS) == 0) return fd;
    close(fd);
    return -1;
}

/* Writes the environment's entries as a list; returns false when one is not "key=value". */
static bool put_entries(struct buffer *out, const char *at, const char *end) {
    uint32_t count = 0;
    size_t start = out->size;
    put_u32(out, 0);
    for (; at < end; at += strlen(at) + 1) {
        const char *equals = strchr(at, '=');
        if (!equals || equals == at) return false;
        put_str(out, at, strlen(at));
        count++;
    }
    if (out->failed) return false;
    for (size_t i = 0; i < 4; i++) out->data[start + i] = (uint8_t)(count >> (8 * i));
    return true;
}

/* The sandbox wrote this file, so we believe nothing in it. */
static bool put_report(struct buffer *out, int fd) {
    static char text[REPORT_MAX + 1];
    uint8_t header[HEADER];
    if (pread(fd, header, HEADER, 0) != HEADER) return false;
    struct reader r = {header, HEADER, false};
    size_t size = get_u32(&r);
    if (!size || size > REPORT_MAX || pread(fd, text, size, HEADER) != (ssize_t)size) return false;
    text[size] = 0;
    size_t start = out->size, cwd = strlen(text);
    if (text[size - 1] || (cwd && text[0] != '/')) return false;
    put_str(out, text, cwd);
    return put_entries(out, text + cwd + 1, text + size) && out->size - start <= REPORT_MAX;
}

void report_read(int fd, struct buffer *out) {
    size_t start = out->size;
    if (fd >= 0 && put_report(out, fd)) return;
    if (!out->failed) out->size = start;
    put_u32(out, 0);
    put_u32(out, 0);
}

/* The number may belong to another file by now, which we must not overwrite. Ours has its seals. */
static int find_file(void) { return fcntl(REPORT_FD, F_GET_SEALS) == SEALS ? REPORT_FD : -1; }

static void add(struct buffer *b, const char *text) { put_bytes(b, text, strlen(text) + 1); }

/* Collects the directory and the environment as they stand in the file; returns false when they are too large. */
static bool collect(struct buffer *b) {
    char cwd[PATH_MAX];
    /* A folder that was removed, or that is above our root, has no path. We report an empty one. */
    if (!getcwd(cwd, sizeof cwd) || *cwd != '/') *cwd = 0;
    add(b, cwd);
    size_t framed = 4 + strlen(cwd) + 4;
    for (char **entry = environ; *entry; entry++) {
        /* exec allows entries that are not "key=value", but no shell has exported them. */
        if (!strchr(*entry, '=') || **entry == '=') continue;
        add(b, *entry);
        framed += 4 + strlen(*entry);
    }
    return !b->failed && framed <= REPORT_MAX;
}

static bool write_header(int fd, size_t size) {
    uint8_t header[HEADER];
    for (size_t i = 0; i < HEADER; i++) header[i] = (uint8_t)(size >> (8 * i));
    return pwrite(fd, header, HEADER, 0) == HEADER;
}

void report_write(void) {
    struct buffer b = {0};
    int fd = find_file();
    /* The size is written last, so that half a report does not count. */
    if (fd < 0 || !write_header(fd, 0)) return;
    if (collect(&b) && pwrite(fd, b.data, b.size, HEADER) == (ssize_t)b.size) write_header(fd, b.size);
    buffer_free(&b);
}
