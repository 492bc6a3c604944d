/* Standard input of a process: bounded by the sender's window, written and acknowledged as the process takes it. */
#ifndef INIT_INPUT_H
#define INIT_INPUT_H

#include "init/supervisor.h"

enum { BULK_WINDOW = 1 << 20 }; /* bytes that a sender may have on the way, with the flag of that name */

/* Takes the bytes of a STDIN. Returns NULL, or a fault for which the connection must end. */
const char *input_add(struct supervisor *s, struct process *p, struct slice data);
void input_end(struct supervisor *s, struct process *p);
void input_flush(struct supervisor *s, struct process *p);
/* Closes standard input; what is left is thrown away and acknowledged. */
void input_close(struct process *p);

#endif
