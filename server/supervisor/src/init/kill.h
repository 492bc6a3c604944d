/* Killing a tree is a state machine of the event loop: TERM, a grace, STOP until nothing new appears, KILL, count. */
#ifndef INIT_KILL_H
#define INIT_KILL_H

#include "init/supervisor.h"

/* Begins to kill a process's tree, or everything (NULL). A kill that is under way is hurried up. */
void kill_begin(struct supervisor *s, struct process *p, enum reason reason, uint32_t grace_ms, bool quiet);
/* Kills everything, and then ends the loop. */
void kill_and_leave(struct supervisor *s, uint32_t grace_ms);
/* Continues every kill that is due. */
void kill_run(struct supervisor *s, int64_t now);
/* Ends the kill of `p`, whose tree is gone. */
void kill_settle(struct supervisor *s, struct process *p);
/* Returns when kill_run must be called again. */
int64_t kill_next(const struct supervisor *s);

#endif
