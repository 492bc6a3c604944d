/* `file list` lists the entries below a folder that match one of some patterns, sorted by name. */
#ifndef FILE_LIST_H
#define FILE_LIST_H

/* Writes one reply and returns the exit code, which is 0 when the reply could be written. */
int file_list(int argc, char **argv);

#endif
