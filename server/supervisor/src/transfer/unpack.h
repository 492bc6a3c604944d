/* Into a workspace: what a tar archive holds. */
#ifndef TRANSFER_UNPACK_H
#define TRANSFER_UNPACK_H

/* `PATH`: unpacks standard input into a folder. Writes a reply and returns the exit code. */
int transfer_unpack(char **argv);

#endif
