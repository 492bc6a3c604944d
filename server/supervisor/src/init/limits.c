#include "init/limits.h"

#include <stdio.h>
#include <sys/resource.h>

/* As prlimit(1) calls them. */
static const char *const NAMES[RLIM_NLIMITS] = {
    [RLIMIT_AS] = "as",
    [RLIMIT_CORE] = "core",
    [RLIMIT_CPU] = "cpu",
    [RLIMIT_DATA] = "data",
    [RLIMIT_FSIZE] = "fsize",
    [RLIMIT_LOCKS] = "locks",
    [RLIMIT_MEMLOCK] = "memlock",
    [RLIMIT_MSGQUEUE] = "msgqueue",
    [RLIMIT_NICE] = "nice",
    [RLIMIT_NOFILE] = "nofile",
    [RLIMIT_NPROC] = "nproc",
    [RLIMIT_RSS] = "rss",
    [RLIMIT_RTPRIO] = "rtprio",
    [RLIMIT_RTTIME] = "rttime",
    [RLIMIT_SIGPENDING] = "sigpending",
    [RLIMIT_STACK] = "stack",
};

void limits_note(struct supervisor *s) {
    for (int i = 0; i < RLIM_NLIMITS; i++) getrlimit(i, &s->limits[i]);
}

static bool is_same(const struct rlimit *a, const struct rlimit *b) {
    return a->rlim_cur == b->rlim_cur && a->rlim_max == b->rlim_max;
}

void limits_restore(struct supervisor *s) {
    for (int i = 0; i < RLIM_NLIMITS; i++) {
        struct rlimit now, *noted = &s->limits[i];
        if (getrlimit(i, &now) || is_same(&now, noted) || setrlimit(i, noted) == 0) continue;
        /* Only a privilege that we do not have raises a hard limit. What is left of it we take. */
        setrlimit(i, &(struct rlimit){now.rlim_max, now.rlim_max});
        snprintf(s->fault, sizeof s->fault, "the limit '%s' of the sandbox's PID 1 was lowered, which ends the sandbox",
                 NAMES[i]);
    }
}
