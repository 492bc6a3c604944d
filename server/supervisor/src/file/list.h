/* `file list`: the entries below a folder that match one of some patterns, in order of their names. */
#ifndef FILE_LIST_H
#define FILE_LIST_H

/* Writes one reply and returns the exit code, 0 when the reply could be written. */
int file_list(int argc, char **argv);

#endif
