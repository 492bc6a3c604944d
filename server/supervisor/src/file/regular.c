#include "file/regular.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"

static const int64_t READ_LIMIT = 10000000; /* us; files of a pseudo file system may have no end */

enum refusal read_whole(int fd, size_t most, struct buffer *out) {
    int64_t end = clock_now() + READ_LIMIT;
    for (;;) {
        /* Reading one byte more than is taken shows that the file is larger. */
        size_t room = most + 1 - out->size, step = room < 1 << 16 ? room : 1 << 16;
        errno = ENOMEM;
        if (!buffer_reserve(out, step)) return REFUSED_SYSTEM;
        ssize_t count = read(fd, out->data + out->size, step);
        if (count == 0) return 0;
        if (count < 0 && errno != EINTR) return REFUSED_SYSTEM;
        if (count > 0) out->size += (size_t)count;
        if (out->size > most) return REFUSED_SIZE;
        if (clock_now() > end) return REFUSED_TIME;
    }
}

int open_regular(const char *path, struct stat *info) {
    /* The file is examined before it is opened: opening a device or a FIFO may have an effect, or block. */
    int found = open(path, O_PATH | O_CLOEXEC), fd = -1;
    if (found < 0 || fstat(found, info)) {
        refuse_system("");
    } else if (!S_ISREG(info->st_mode)) {
        refuse_mode(info->st_mode);
    } else {
        char name[64];
        snprintf(name, sizeof name, "/proc/self/fd/%d", found);
        fd = open(name, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        if (fd < 0) refuse_system("");
    }
    if (found >= 0) close(found);
    return fd;
}
