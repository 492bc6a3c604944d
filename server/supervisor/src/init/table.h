/* The table of processes. */
#ifndef INIT_TABLE_H
#define INIT_TABLE_H

#include "init/supervisor.h"

/* Add a process that nothing has been started for yet; NULL: no memory. */
struct process *table_add(struct supervisor *s, uint32_t number, const struct spawn *request);
/* The process of this number, or NULL. */
struct process *table_find(const struct supervisor *s, uint32_t number);
/* How many processes are not gone. */
size_t table_running(const struct supervisor *s);
/* Leaders that live, for a scan; the array is valid until the next call. */
size_t table_leaders(const struct supervisor *s, const pid_t **leaders);
/* Take a process out of the table and free all that it holds. */
void table_remove(struct supervisor *s, struct process *p);
/* Forget what may be forgotten, and what must be to stay within the bounds. */
void table_sweep(struct supervisor *s);
/* The connection is another one, or none: it has no credit, and is not told what came before it. */
void table_reset_reader(struct supervisor *s);

#endif
