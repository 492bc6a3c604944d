/* Standard input: bounded by the sender's window, written as the process takes it, acknowledged as it is taken. */
#ifndef INIT_INPUT_H
#define INIT_INPUT_H

#include "init/supervisor.h"

/* NULL, or why the connection must end. */
const char *input_add(struct supervisor *s, struct process *p, struct slice data);
void input_end(struct supervisor *s, struct process *p);
void input_flush(struct supervisor *s, struct process *p);
/* Throw away what is left and acknowledge it. */
void input_close(struct process *p);

#endif
