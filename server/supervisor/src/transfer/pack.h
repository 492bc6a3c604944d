/* A tar archive of a file or a folder. */
#ifndef TRANSFER_PACK_H
#define TRANSFER_PACK_H

#include <stdbool.h>

/* Writes the archive of what is open. Its entries begin with the last part of `path`. Returns false when it breaks off;
   why is its last entry then: the comment of a global header. */
bool pack(int fd, const char *path);

#endif
