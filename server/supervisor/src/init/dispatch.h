/* Requests are read from a connection and carried out. */
#ifndef INIT_DISPATCH_H
#define INIT_DISPATCH_H

#include "init/supervisor.h"

/* Reads what a connection sends, and carries out the requests in it. */
void dispatch_event(struct supervisor *s, struct conn *c, uint32_t events);

#endif
