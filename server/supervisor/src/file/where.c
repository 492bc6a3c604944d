#include "file/where.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

void put_where(struct buffer *reply, int fd) {
    char link[64], path[PATH_MAX];
    struct statx info;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path);
    put_str(reply, path, size > 0 ? (size_t)size : 0);
    /* Some file systems give the number of a deleted file to a new one; the time of its birth tells them apart. */
    if (statx(fd, "", AT_EMPTY_PATH, STATX_INO | STATX_BTIME, &info)) info = (struct statx){0};
    put_u64(reply, (uint64_t)info.stx_dev_major << 32 | info.stx_dev_minor);
    put_u64(reply, info.stx_ino);
    bool born = info.stx_mask & STATX_BTIME;
    put_u64(reply, born ? (uint64_t)info.stx_btime.tv_sec * 1000000000 + info.stx_btime.tv_nsec : 0);
}
