/* What a harness and the driver share. The entry point is libFuzzer's, so a harness can be linked with either. */
#ifndef FUZZ_H
#define FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/* How much of what came the code under test has taken, and how much it has refused: the harness counts, the driver
   prints. */
extern unsigned long fuzz_taken, fuzz_refused;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* End the program where a sanitizer would: what must hold does not hold. */
static inline void fuzz_check(int holds) {
    if (!holds) abort();
}

#endif
