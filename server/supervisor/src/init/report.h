/* The state report: where a shell ended, told by itself into a FIFO. Nothing in it is believed, or read, here. */
#ifndef INIT_REPORT_H
#define INIT_REPORT_H

#include "init/supervisor.h"

/* Make the folder of the reports beside that of the socket. Without it nothing reports. */
void report_prepare(struct supervisor *s, const char *socket);
/* Make the FIFO of a process, and the file that its shell reads first where `prologue` is not empty; false, with errno:
   it cannot be made. */
bool report_open(struct supervisor *s, struct process *p, struct slice prologue);
/* Read what has been told so far. */
void report_read(struct process *p);
/* The process has ended: read the rest, and take the files away. Without effect where it is done. */
void report_close(const struct supervisor *s, struct process *p);

#endif
