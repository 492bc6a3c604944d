/* The leader is the process between PID 1 and a main process: whatever main starts stays its descendant. */
#ifndef START_LEADER_H
#define START_LEADER_H

#include <stdint.h>
#include <sys/types.h>

#include "start/child.h"

enum report_kind { LEADER_STARTED = 1, LEADER_FAILED, LEADER_ENDED, LEADER_DONE };

enum { FAULT_TEXT = 256 };

/* What a leader reports to PID 1; it is small enough for a pipe to take it in one piece. */
struct leader_report {
    int32_t kind;
    int32_t pid;            /* STARTED */
    int32_t stage, error;   /* FAILED */
    int32_t status;         /* ENDED: that of wait(2) */
    int32_t has_children;   /* ENDED: others than main are left, or were a moment ago */
    int64_t when;           /* STARTED, ENDED */
    int64_t user_us, system_us, max_rss_kb;
    char text[FAULT_TEXT];  /* FAILED */
};

struct rusage;

/* Runs the leader of one main process until it and all its descendants are gone. `reports` is a pipe to PID 1. */
_Noreturn void leader_run(const struct launch *l, int reports, pid_t supervisor);
void report_usage(struct leader_report *r, const struct rusage *usage);

#endif
