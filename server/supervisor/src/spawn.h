/* Starting a process. */
#ifndef SPAWN_H
#define SPAWN_H

#include "supervisor.h"

/* Start a process. What cannot be started is answered with FAILED. */
void spawn(struct supervisor *s, uint32_t number, const struct spawn *request);

#endif
