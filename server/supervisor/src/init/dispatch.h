/* Requests: they are read from a connection, and what each of them asks is done. */
#ifndef INIT_DISPATCH_H
#define INIT_DISPATCH_H

#include "init/supervisor.h"

/* Take what a connection sends, and do what its frames ask. */
void dispatch_event(struct supervisor *s, struct conn *c, uint32_t events);

#endif
