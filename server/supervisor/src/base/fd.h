/* Descriptors that are marked as closed by -1. */
#ifndef BASE_FD_H
#define BASE_FD_H

#include <unistd.h>

/* Close a descriptor if it is open, and mark it as closed. */
static inline void close_fd(int *fd) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

#endif
