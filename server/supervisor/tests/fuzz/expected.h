/* What the table's harness expects of each process, and its check of every answer. */
#ifndef FUZZ_EXPECTED_H
#define FUZZ_EXPECTED_H

#include "init/supervisor.h"

enum { NUMBERS = 128 }; /* of processes: more than are remembered when they have finished */

extern struct expected {
    bool present, exited, gone; /* the last two: the server has been told */
    uint64_t credit[STREAMS], next[STREAMS];
} expected[NUMBERS];

/* The one supervisor, whose table and connection the harness drives. */
extern struct supervisor s;

/* The byte that a process writes at an offset of a stream. */
uint8_t byte_at(uint32_t number, int stream, uint64_t offset);
/* Takes every frame out of the connection's buffer, and ends the program when one says what is not so. */
void check_answers(void);

#endif
