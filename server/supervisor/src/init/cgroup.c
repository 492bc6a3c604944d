#include "init/cgroup.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TEXT_MAX = 1024 };

static bool read_text(int fd, char text[TEXT_MAX]) {
    ssize_t size = pread(fd, text, TEXT_MAX - 1, 0);
    if (size <= 0) return false;
    text[size] = 0;
    return true;
}

/* Opens the file of cgroup v2, or that of v1; returns -1 when there is neither. */
static int open_either(const char *v2, const char *v1) {
    int fd = open(v2, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? open(v1, O_RDONLY | O_CLOEXEC) : fd;
}

uint32_t oom_kills(void) {
    /* Each command reads the file twice, so it stays open: opening it takes ten times as long as reading it. */
    static int events = -1;
    char text[TEXT_MAX];
    if (events < 0) events = open_either("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control");
    if (!read_text(events, text)) return 0;
    for (char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (!strncmp(line, "oom_kill ", 9)) return (uint32_t)strtoul(line + 9, NULL, 10);
    }
    return 0;
}

uint64_t memory_limit(void) {
    char text[TEXT_MAX];
    int fd = open_either("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes");
    bool told = read_text(fd, text);
    if (fd >= 0) close(fd);
    if (!told) return UINT64_MAX;
    /* cgroup v2 says "max" where there is no limit. */
    return *text >= '0' && *text <= '9' ? strtoull(text, NULL, 10) : UINT64_MAX;
}
