/* Where programs of the sandbox reach the server: a port on each loopback address. */
#ifndef INIT_LISTEN_H
#define INIT_LISTEN_H

#include "init/supervisor.h"

/* Listens, unless it does already, on whatever port. `port` 0: any that is free. Returns 0, or why that is
   impossible. */
int listen_begin(struct supervisor *s, uint16_t port);
/* Returns the families of addresses that it listens on, as the protocol numbers them. */
uint8_t listen_families(const struct supervisor *s);
/* Makes tunnels of those who wait, as far as there are places; returns whether somebody may still wait for one that is
   there. */
bool listen_accept(struct supervisor *s);

#endif
