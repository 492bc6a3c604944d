/* The state report is a small sealed file in memory, where a shell leaves its directory and environment. */
#ifndef START_REPORT_H
#define START_REPORT_H

#include "base/bytes.h"

enum {
    REPORT_MAX = 64 << 10, /* bytes of the report in an EXIT frame */
    REPORT_FD = 199,       /* high enough that scripts do not open it by number */
};

/* Returns the file, or -1. A seal fixes its size, so that processes cannot use it to hide memory. */
int report_create(void);
/* Writes the "str cwd, list env" of an EXIT to `out`; both are empty when there is no sound report. */
void report_read(int fd, struct buffer *out);
/* `supervisor report` writes its own directory and environment, as far as that can be done. */
void report_write(void);

#endif
