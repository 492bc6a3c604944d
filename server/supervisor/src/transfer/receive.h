/* Into a workspace: one file. */
#ifndef TRANSFER_RECEIVE_H
#define TRANSFER_RECEIVE_H

/* `SIZE MODE PATH`: standard input becomes a file of SIZE bytes (`-`: to its end). Writes a reply and
   returns the exit code. */
int transfer_receive(char **argv);

#endif
