/* `supervisor init`: from a bare process to a supervisor that listens. */
#ifndef INIT_INIT_H
#define INIT_INIT_H

#include <stdbool.h>
#include <sys/types.h>

/* The protocol's: how long a supervisor waits for its first server, unless it was told otherwise. */
enum { CLAIM_MS = 60000 };

/* What the supervisor is started with.
   `path`: of its socket. `claim_ms`: as CLAIM_MS. `group`: everything that it starts is in that group as well, and
   what it makes can be written by the group; 0: none. `owns_ipc`: the IPC namespace is the sandbox's own, and so is all
   that it holds. `stays`: when a server has it end everything, it begins anew as if it had just started, and waits for
   another one; only a dead server ends it. */
struct init_options {
    const char *path;
    unsigned long claim_ms;
    gid_t group;
    bool owns_ipc;
    bool stays;
};

enum { INIT_AGAIN = -1 }; /* not an exit code: the program is to be run again in our place */

/* Runs the supervisor until it is to end; returns the exit code. */
int init_run(const struct init_options *options);

#endif
