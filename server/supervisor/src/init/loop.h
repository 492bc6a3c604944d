/* The one event loop. */
#ifndef INIT_LOOP_H
#define INIT_LOOP_H

struct supervisor;

/* Serves until everything is to end; returns the exit code. */
int loop_run(struct supervisor *s);

#endif
