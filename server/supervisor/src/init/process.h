/* The life of a process, as its leader and its output report it. */
#ifndef INIT_PROCESS_H
#define INIT_PROCESS_H

#include "init/supervisor.h"

/* What a leader's reports mean for its tree. */
enum fate {
    FATE_OPEN,
    FATE_GONE, /* nothing is left of the tree */
    FATE_LOST, /* the leader died: PID 1 has the tree now, and must kill it */
};

/* Reads what the leader of a process reports. After FATE_OPEN the process can have been removed. */
enum fate process_report(struct supervisor *s, struct process *p);
/* Reaps every child that has ended. */
void process_reap(struct supervisor *s);
/* Notes that the main process has ended; `status` is that of wait(2). */
void process_ended(struct supervisor *s, struct process *p, int status, uint32_t descendants);
/* Notes that nothing is left of the tree. */
void process_gone(struct supervisor *s, struct process *p);

#endif
