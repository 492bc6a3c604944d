/* `supervisor init`: from a bare process to a supervisor that listens. */
#ifndef INIT_INIT_H
#define INIT_INIT_H

/* The protocol's: how long a supervisor waits for its first server, unless it was told otherwise. */
enum { CLAIM_MS = 60000 };

/* Runs the supervisor behind this socket until it is to end; returns the exit code. */
int init_run(const char *path, unsigned long claim_ms);

#endif
