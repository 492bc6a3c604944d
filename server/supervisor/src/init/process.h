/* What becomes of a process: what its leader and its output tell. */
#ifndef INIT_PROCESS_H
#define INIT_PROCESS_H

#include "init/supervisor.h"

/* What a leader's reports mean for its tree. */
enum tidings {
    TIDINGS_NONE,
    TIDINGS_GONE, /* nothing is left of it */
    TIDINGS_LOST, /* its leader is dead without a farewell: PID 1 has the tree now, which must not live on unled */
};

/* Take what the leader of a process reports; with TIDINGS_NONE the process can have been removed. */
enum tidings process_report(struct supervisor *s, struct process *p);
/* Read what a stream of a process holds, as far as one turn of the loop may take. */
void process_output(struct process *p, int stream);
/* Reap every child that has ended. */
void process_reap(struct supervisor *s);
/* The main process has ended; `status` as from wait(2). */
void process_ended(struct supervisor *s, struct process *p, int status, uint32_t descendants);
/* Nothing is left of the tree. */
void process_gone(struct supervisor *s, struct process *p);

#endif
