/* Into a workspace: what a tar archive holds. */
#ifndef TRANSFER_UNPACK_H
#define TRANSFER_UNPACK_H

#include <stdbool.h>

/* Unpacks standard input into a folder. Writes a reply and returns the exit code. `has_end`: standard input has an end,
   which is read; else it stays open behind the archive. */
int transfer_unpack(const char *path, bool has_end);

#endif
