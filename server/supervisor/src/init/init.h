/* `supervisor init`: from a bare process to a supervisor that listens. */
#ifndef INIT_INIT_H
#define INIT_INIT_H

#include <stdbool.h>

/* The protocol's: how long a supervisor waits for its first server, unless it was told otherwise. */
enum { CLAIM_MS = 60000 };

/* Runs the supervisor behind this socket until it is to end; returns the exit code. `owns_ipc`: the IPC namespace is
   the sandbox's own, and so is all that it holds. */
int init_run(const char *path, unsigned long claim_ms, bool owns_ipc);

#endif
