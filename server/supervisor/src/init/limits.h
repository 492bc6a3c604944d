/* The resource limits of the supervisor itself. Root of the sandbox may change them by prlimit(2), because PID 1 is
   root too. A PID 1 that can open no file sees no process, and whatever it starts inherits its limits. */
#ifndef INIT_LIMITS_H
#define INIT_LIMITS_H

#include "init/supervisor.h"

/* Notes the limits that must stay. */
void limits_note(struct supervisor *s);
/* Puts back the limits that have changed. When one was lowered for good, that becomes the supervisor's fault. */
void limits_restore(struct supervisor *s);

#endif
