/* The state report: a small sealed file of memory in which a shell leaves its directory and environment. */
#ifndef START_REPORT_H
#define START_REPORT_H

#include "base/bytes.h"

enum {
    REPORT_MAX = 64 << 10, /* of the report as it stands in an EXIT frame */
    REPORT_FD = 199,       /* out of the way of what scripts open by number */
};

/* The file, or -1. Its size is fixed by a seal: what runs cannot use it to hide memory. */
int report_create(void);
/* Write the answer's "str cwd, list env" into `out`; both empty when there is no sound report. */
void report_read(int fd, struct buffer *out);
/* `supervisor report`: write our own directory and environment, as far as that can be done. */
void report_write(void);

#endif
