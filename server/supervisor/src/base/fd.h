/* File descriptors, of which -1 means a closed one. */
#ifndef BASE_FD_H
#define BASE_FD_H

#include <unistd.h>

/* Closes a descriptor if it is open, and marks it as closed. */
static inline void close_fd(int *fd) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

#endif
