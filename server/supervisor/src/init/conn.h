/* Connections: one that is served, and a few strangers that have not said HELLO yet. */
#ifndef INIT_CONN_H
#define INIT_CONN_H

#include "init/supervisor.h"

void conn_accept(struct supervisor *s);
/* Say what is wrong, as far as the socket takes it now, and close. */
void conn_refuse(struct supervisor *s, struct conn *c, const char *fault);
void conn_close(struct supervisor *s, struct conn *c);
/* The number of a connection in the supervisor's array. */
uint32_t conn_index(const struct supervisor *s, const struct conn *c);
/* How many bytes wait in a connection's buffer to be sent. */
static inline size_t conn_waiting(const struct conn *c) { return c->out.size - c->sent; }
/* Whether more waits than a server that reads would ever let wait. */
bool conn_overflows(const struct conn *c);
/* Write what the socket takes now. False: the connection is broken. */
bool conn_flush(struct conn *c);
/* When the next connection expires, or the next answer may be held back no longer. */
int64_t conn_next(const struct supervisor *s);
/* Refuse each connection whose HELLO is overdue. */
void conn_expire(struct supervisor *s, int64_t now);

#endif
