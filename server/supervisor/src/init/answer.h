/* Answers: every frame that goes to the server. They are written to the connection's buffer, and nothing here does
   I/O. */
#ifndef INIT_ANSWER_H
#define INIT_ANSWER_H

#include "init/supervisor.h"

/* Into a buffer of its own: WELCOME comes before what the session sends, and is not a part of that. */
void answer_welcome(struct buffer *out, const struct supervisor *s, bool first_claim);
/* Without a connection, SPAWNED and FAILED are dropped: the next server asks for a LISTING. */
void answer_spawned(struct supervisor *s, const struct process *p);
void answer_failed(struct supervisor *s, uint32_t number, int stage, int error, const char *text);
void answer_killed(struct supervisor *s, uint32_t number, uint8_t reason, uint32_t survivors, const struct process *p);
void answer_listing(struct supervisor *s);
void answer_ack(struct supervisor *s, uint32_t number, uint32_t count);
void answer_pong(struct supervisor *s);
void answer_state(struct supervisor *s, uint32_t from);
/* A piece of a spool; `p` NULL: there is no such process. */
void answer_data(struct supervisor *s, const struct request *q, const struct process *p);
/* `problem` is empty when sudo is ready. */
void answer_sudo(struct supervisor *s, const char *problem);
/* Fills the connection's buffer with output and with events that are owed. Returns true when it is full and there is
   more. */
bool answer_pump(struct supervisor *s);
/* Tells the server which requests have been served, where it is time for that. */
void answer_acknowledge(struct supervisor *s);

#endif
