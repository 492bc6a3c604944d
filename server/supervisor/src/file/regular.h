/* Regular files, and what can be read of one as a whole. */
#ifndef FILE_REGULAR_H
#define FILE_REGULAR_H

#include <stddef.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "file/reply.h"

/* All of a file, or of standard input, into `out`, no more than `most` bytes; 0, or why not. */
enum refusal read_whole(int fd, size_t most, struct buffer *out);
/* A regular file for reading, or -1 when the refusal was told. */
int open_regular(const char *path, struct stat *info);

#endif
