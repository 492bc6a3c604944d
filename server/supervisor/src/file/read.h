/* `file read` replies with a whole file if it is small, else with a window of its lines; `file fetch` with a whole
   file. */
#ifndef FILE_READ_H
#define FILE_READ_H

/* Each writes one reply and returns the exit code, which is 0 when the reply could be written. */
int file_read(char **argv);
int file_fetch(char **argv);

#endif
