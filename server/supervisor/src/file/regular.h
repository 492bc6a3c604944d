/* Opening regular files, and reading them as a whole. */
#ifndef FILE_REGULAR_H
#define FILE_REGULAR_H

#include <stddef.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "file/reply.h"

/* Reads all of a file, or of standard input, into `out`, but at most `most` bytes. Returns 0, or why it could not. */
enum refusal read_whole(int fd, size_t most, struct buffer *out);
/* Opens a regular file for reading; returns -1 when the refusal has been written. */
int open_regular(const char *path, struct stat *info);

#endif
