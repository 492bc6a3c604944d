/* `file write` replaces a whole file or appends to one. It reads the new content from standard input. */
#ifndef FILE_WRITE_H
#define FILE_WRITE_H

/* Writes one reply and returns the exit code, which is 0 when the reply could be written. */
int file_write(char **argv);

#endif
