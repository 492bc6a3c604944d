/* Into a workspace: one file, or what a tar archive holds. */
#ifndef TRANSFER_RECEIVE_H
#define TRANSFER_RECEIVE_H

/* `SIZE MODE PATH`: standard input becomes a file of SIZE bytes (`-`: to its end). */
int transfer_receive(char **argv);
/* `PATH`: unpacks standard input into a folder. Both write a reply and return the exit code. */
int transfer_unpack(char **argv);

#endif
