/* Starting a process. */
#ifndef INIT_SPAWN_H
#define INIT_SPAWN_H

#include "init/supervisor.h"

/* Starts a process, or answers with FAILED. */
void spawn(struct supervisor *s, uint32_t number, const struct spawn *request);

#endif
