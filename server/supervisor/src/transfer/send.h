/* Out of a workspace: the bytes of a file, or a tar archive of a file or folder. */
#ifndef TRANSFER_SEND_H
#define TRANSFER_SEND_H

#include <stdbool.h>
#include <stdint.h>

/* `look|raw|tar OFFSET LENGTH PATH`: writes what PATH is, and then its bytes or archive;
   of a folder always the archive. Returns the exit code. */
int transfer_send(char **argv);
/* Writes bytes of a file to the outlet; returns false when there are fewer, or the reader has gone. */
bool send_bytes(int fd, uint64_t offset, uint64_t length);

#endif
