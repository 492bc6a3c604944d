/* Starting a process. */
#ifndef INIT_SPAWN_H
#define INIT_SPAWN_H

#include "init/supervisor.h"

/* Start a process. What cannot be started is answered with FAILED. */
void spawn(struct supervisor *s, uint32_t number, const struct spawn *request);

#endif
