/* Connections: one that is served, and a few strangers that have not sent HELLO yet.

   The served one is a session: what is sent is kept until the server acknowledges it, so that the session outlives its
   socket. A later connection that names the session takes its place, and gets what the server has not got. */
#ifndef INIT_CONN_H
#define INIT_CONN_H

#include "init/supervisor.h"

enum { KEPT_MAX = 1 << 20 }; /* bytes not acknowledged: four times what a server takes before it says so */

void conn_accept(struct supervisor *s);
/* Sends an ERROR, as far as the socket takes it now, and closes the connection. */
void conn_refuse(struct supervisor *s, struct conn *c, const char *fault);
/* Closes a connection; if it is the session's, the session ends too. */
void conn_close(struct supervisor *s, struct conn *c);
/* The socket is gone: a session waits for its next connection, and any other connection is closed. */
void conn_lose(struct supervisor *s, struct conn *c);
/* Puts a new connection in the place of the session's; returns false when the server has got what was never sent, or
   what is kept no longer reaches back to what it has got. */
bool conn_resume(struct supervisor *s, struct conn *c, uint64_t position);
/* Sends a connection's first bytes, which are not a part of the session; returns false when it is broken. */
bool conn_send_first(const struct conn *c, const struct buffer *first);
/* Drops what the server has got; returns false when it cannot have got that. */
bool conn_acknowledged(struct conn *c, uint64_t position);
/* Returns the index of a connection in the supervisor's array. */
uint32_t conn_index(const struct supervisor *s, const struct conn *c);
/* Returns how many bytes of a connection's buffer wait to be sent. */
static inline size_t conn_waiting(const struct conn *c) { return c->out.size - c->sent; }
/* Returns how many bytes of the session the socket has taken in all. */
static inline uint64_t conn_passed(const struct conn *c) { return c->start + c->sent; }
/* Returns whether so much is kept for the server that no output is added. */
static inline bool conn_full(const struct conn *c) { return c->out.size - c->acked >= KEPT_MAX; }
/* Returns whether more bytes wait than a server that reads would ever let wait. */
bool conn_overflows(const struct conn *c);
/* Sends what the socket takes now; returns false when the connection is broken. */
bool conn_flush(struct conn *c);
/* Returns when the next connection expires, or when an answer may be held back no longer. */
int64_t conn_next(const struct supervisor *s);
/* Closes each connection whose HELLO is overdue. */
void conn_expire(struct supervisor *s, int64_t now);

#endif
