/* Killing a tree, as a state machine of the event loop: TERM, a grace, STOP until nothing new appears, KILL, count. */
#ifndef INIT_KILL_H
#define INIT_KILL_H

#include "init/supervisor.h"

/* Kill a process's tree, or everything (NULL); a kill that is under way is hurried up. */
void kill_begin(struct supervisor *s, struct process *p, enum reason reason, uint32_t grace_ms, bool quiet);
/* Kill everything, then end the loop. */
void kill_and_leave(struct supervisor *s, uint32_t grace_ms);
/* Go on with every kill that is due. */
void kill_run(struct supervisor *s, int64_t now);
/* The tree of `p` is gone: whoever kills it is done. */
void kill_settle(struct supervisor *s, struct process *p);
/* When kill_run must be called again. */
int64_t kill_next(const struct supervisor *s);

#endif
