/* Makes one file what another one is: its content, and what it is beside that. Each returns false with errno set. */
#ifndef TRANSFER_CLONE_H
#define TRANSFER_CLONE_H

#include <stdbool.h>
#include <sys/stat.h>

/* Owner, attributes, mode and times, of an open file or folder. */
bool clone_finish(int from, int to, const struct stat *info);
/* The same of what is not opened, such as a link, without attributes. */
bool clone_finish_name(int folder, const char *name, const struct stat *info);
/* The first `size` bytes; holes stay holes. */
bool clone_content(int from, int to, off_t size);

#endif
