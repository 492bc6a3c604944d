/* The code between fork and exec. */
#ifndef START_CHILD_H
#define START_CHILD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>

#include "start/user.h"

/* Everything that is needed to start a main process. */
struct launch {
    const char *program; /* a path, or a name that is looked up in PATH */
    char **argv, **env;
    struct hidden *hidden; /* the same with the last argument out of sight; NULL: it may be seen */
    char *cwd, *user;
    struct identity who;
    bool pty;
    bool exposed; /* fs.suid_dumpable is 1: others of its user can read the memory of a child that became `who` */
    int nice;
    mode_t mask;
    uint64_t capabilities;   /* that stay in the bounding set: what sudo may give, nothing else */
    int in, out, err;        /* -1: /dev/null */
    struct rlimit files;     /* as the supervisor found it: its own limit is raised */
};

struct fault {
    int32_t stage, error;
};

/* Not a failure: this kernel lets nobody trace, so the last argument can be seen. */
enum { STAGE_SEEN = 0 };

/* Become the main process. What fails is written to `errors` as a struct fault. */
_Noreturn void child_run(const struct launch *l, int errors);
/* Changes the user, and gives up every capability; those in `capabilities` stay in the bounding set. False: errno says
   why. */
bool become(const struct identity *who, uint64_t capabilities);
/* Writes the sentence for a FAILED. */
void launch_fault(const struct launch *l, int stage, int error, char *text, size_t size);
/* Closes every descriptor but these, which are in ascending order. */
void close_except(const int *keep, size_t count);
/* Lets the kernel kill us, and what we fork, when memory is short. It fails silently when our /proc files are
   root's. */
void offer_to_oom(void);
/* Resets all signals to what a new program expects. */
void signals_reset(void);

#endif
