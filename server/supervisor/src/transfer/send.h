/* Out of a workspace: the bytes of a file, or a tar archive of a file or folder. */
#ifndef TRANSFER_SEND_H
#define TRANSFER_SEND_H

/* `look|raw|tar OFFSET LENGTH PATH`: writes what PATH is, and then its bytes or archive;
   of a folder always the archive. Returns the exit code. */
int transfer_send(char **argv);

#endif
