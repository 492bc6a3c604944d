/* The frames of tunnels, beside those of processes: neither kind waits for the other to have nothing to say. */
#ifndef INIT_RELAY_H
#define INIT_RELAY_H

#include "init/supervisor.h"

/* Answers a LISTEN; `error`: why it cannot listen, or 0. */
void relay_listening(struct supervisor *s, int error);
/* Tells the server that a tunnel is broken, or was never there. */
void relay_reset(struct supervisor *s, uint32_t number, int error);
/* Moves what the tunnels have to say into the connection's buffer. Returns true when there is more. */
bool relay_pump(struct supervisor *s);

#endif
