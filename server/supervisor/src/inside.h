/* What an engine runs in a sandbox whose files and image it cannot see from outside. */
#ifndef INSIDE_H
#define INSIDE_H

#include <stdbool.h>

/* Prints the variables that the container was started with, a NUL after each. */
int inside_environment(void);
/* Says whether the API of the Kubernetes that the container runs in can be reached: `reached`, `unknown` where no
   variable names it, or what the kernel says instead. */
int inside_reach(void);
/* Becomes `user`, a name or numbers as for a process, and enters `folder`. Says why where it cannot. */
bool inside_become(const char *user, const char *folder);

#endif
