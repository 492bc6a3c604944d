/* Connections: one that is served, and a few strangers that have not sent HELLO yet. */
#ifndef INIT_CONN_H
#define INIT_CONN_H

#include "init/supervisor.h"

void conn_accept(struct supervisor *s);
/* Sends an ERROR, as far as the socket takes it now, and closes the connection. */
void conn_refuse(struct supervisor *s, struct conn *c, const char *fault);
void conn_close(struct supervisor *s, struct conn *c);
/* Returns the index of a connection in the supervisor's array. */
uint32_t conn_index(const struct supervisor *s, const struct conn *c);
/* Returns how many bytes of a connection's buffer wait to be sent. */
static inline size_t conn_waiting(const struct conn *c) { return c->out.size - c->sent; }
/* Returns whether more bytes wait than a server that reads would ever let wait. */
bool conn_overflows(const struct conn *c);
/* Sends what the socket takes now; returns false when the connection is broken. */
bool conn_flush(struct conn *c);
/* Returns when the next connection expires, or when an answer may be held back no longer. */
int64_t conn_next(const struct supervisor *s);
/* Refuses each connection whose HELLO is overdue. */
void conn_expire(struct supervisor *s, int64_t now);

#endif
