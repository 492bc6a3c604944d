/* The one event loop. */
#ifndef LOOP_H
#define LOOP_H

struct supervisor;

/* Serve until everything is to end; the exit code. */
int loop_run(struct supervisor *s);

#endif
