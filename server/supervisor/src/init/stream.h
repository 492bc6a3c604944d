/* The output of a process on its way from the pipe to the spool. */
#ifndef INIT_STREAM_H
#define INIT_STREAM_H

#include "init/supervisor.h"

/* Reads what a stream holds, as far as one turn of the loop may take. With SPAWN_HOLD it stops where the spool is full
   of bytes that the server has not got: the program waits then, as for any slow reader. */
void stream_read(struct supervisor *s, struct process *p, int stream);
/* Reads what each stream holds at this moment and no more: a descendant may write for ever. */
void stream_drain(struct process *p);
/* Bytes that were written: with SPAWN_HOLD those too that still wait in the pipe. */
uint64_t stream_total(const struct process *p, int stream);
/* Whether somebody may still read its output from here, because nothing of it may be lost. */
bool stream_owed(const struct process *p);
/* Goes on with what was stopped and has room again. */
void stream_resume(struct supervisor *s);

#endif
