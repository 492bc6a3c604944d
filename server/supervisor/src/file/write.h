/* `file write` replaces a whole file, `file edit` replaces exact text in one. Both read the new text from standard
   input. */
#ifndef FILE_WRITE_H
#define FILE_WRITE_H

/* Each writes one reply and returns the exit code, which is 0 when the reply could be written. */
int file_write(char **argv);
int file_edit(char **argv);

#endif
