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

/* Returns the number behind a name at a line's beginning, or 0 when there is none. */
static uint32_t counted(int fd, const char *name) {
    char text[TEXT_MAX];
    size_t size = strlen(name);
    if (!read_text(fd, text)) return 0;
    for (char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (!strncmp(line, name, size)) return (uint32_t)strtoul(line + size, NULL, 10);
    }
    return 0;
}

/* Each command reads these files twice, so they stay open: opening one takes ten times as long as reading it. */

uint32_t oom_kills(void) {
    static int events = -1;
    if (events < 0) events = open_either("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control");
    return counted(events, "oom_kill ");
}

uint32_t refused_forks(void) {
    static int events = -1;
    if (events < 0) events = open_either("/sys/fs/cgroup/pids.events", "/sys/fs/cgroup/pids/pids.events");
    return counted(events, "max ");
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
