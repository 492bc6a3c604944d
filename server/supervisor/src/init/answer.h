/* Answers: all that goes to the server. */
#ifndef INIT_ANSWER_H
#define INIT_ANSWER_H

#include "init/supervisor.h"

void answer_welcome(struct supervisor *s, bool first_claim);
/* SPAWNED and FAILED are dropped when no server is connected: the next one asks for a LISTING. */
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
/* Fill the connection's buffer with output and what else is owed; true: it is full, and more is there. */
bool answer_pump(struct supervisor *s);
/* Produce what is owed and write it, as far as the socket takes it. */
void answer_serve(struct supervisor *s);

#endif
