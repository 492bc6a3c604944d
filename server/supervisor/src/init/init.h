/* `supervisor init`: from a bare process to a supervisor that listens. */
#ifndef INIT_INIT_H
#define INIT_INIT_H

/* Runs the supervisor behind this socket until it is to end; returns the exit code. */
int init_run(const char *path);

#endif
