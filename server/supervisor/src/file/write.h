/* `file write`: a whole file. `file edit`: exact text replaced in one. What they write comes by standard input. */
#ifndef FILE_WRITE_H
#define FILE_WRITE_H

/* Each writes one reply and returns the exit code, 0 when the reply could be written. */
int file_write(char **argv);
int file_edit(char **argv);

#endif
