#include "oom.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TEXT_MAX = 1024 };

static bool read_text(const char *path, char text[TEXT_MAX]) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    ssize_t size = read(fd, text, TEXT_MAX - 1);
    close(fd);
    if (size <= 0) return false;
    text[size] = 0;
    return true;
}

uint32_t oom_kills(void) {
    char text[TEXT_MAX];
    if (!read_text("/sys/fs/cgroup/memory.events", text) &&
        !read_text("/sys/fs/cgroup/memory/memory.oom_control", text))
        return 0;
    for (char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (!strncmp(line, "oom_kill ", 9)) return (uint32_t)strtoul(line + 9, NULL, 10);
    }
    return 0;
}

uint64_t memory_limit(void) {
    char text[TEXT_MAX];
    if (!read_text("/sys/fs/cgroup/memory.max", text) &&
        !read_text("/sys/fs/cgroup/memory/memory.limit_in_bytes", text))
        return UINT64_MAX;
    /* cgroup v2 says "max" where there is no limit. */
    return *text >= '0' && *text <= '9' ? strtoull(text, NULL, 10) : UINT64_MAX;
}
