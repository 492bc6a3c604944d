/* The table of processes. */
#ifndef INIT_TABLE_H
#define INIT_TABLE_H

#include "init/supervisor.h"

/* Adds a process of which nothing has been started; returns NULL when memory runs out. */
struct process *table_add(struct supervisor *s, uint32_t number, const struct spawn *request);
/* Returns the process of this number, or NULL. */
struct process *table_find(const struct supervisor *s, uint32_t number);
/* Returns how many processes are not gone. */
size_t table_running(const struct supervisor *s);
/* Returns how many leaders live; the array is valid until the next call. */
size_t table_leaders(const struct supervisor *s, const pid_t **leaders);
/* Removes a process and frees all that it holds. */
void table_remove(struct supervisor *s, struct process *p);
/* Forgets finished processes: those that the server gave up, and the oldest ones beyond the bounds. */
void table_sweep(struct supervisor *s);
/* Forgets what the connection was owed: the next one has no credit, and does not get earlier events. */
void table_reset_reader(struct supervisor *s);

#endif
