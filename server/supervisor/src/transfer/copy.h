/* Copies a task's files into another task's workspace: a fork. */
#ifndef TRANSFER_COPY_H
#define TRANSFER_COPY_H

/* `words` are the folder to copy, and folders of which each gets everything in it, and nothing else. Writes a line for
   each to standard output: its number from 0 on, and "ok", or what could not be copied and why. Of two lines for one
   folder the first one counts. Returns the exit code. */
int transfer_copy(int count, char **words);

/* Removes everything in the folder that the word names. Writes a line as above. Returns the exit code. */
int transfer_empty(char **words);

#endif
