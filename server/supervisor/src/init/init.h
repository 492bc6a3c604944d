/* From a bare process to a supervisor that listens. */
#ifndef INIT_INIT_H
#define INIT_INIT_H

/* Be the supervisor behind this socket, until told to leave; the exit code. */
int init_run(const char *path);

#endif
