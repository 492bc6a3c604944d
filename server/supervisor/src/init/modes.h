/* Gives file systems in memory the modes that were asked for. */
#ifndef INIT_MODES_H
#define INIT_MODES_H

#include <stdbool.h>

/* `word` is "MODE:PATH", as in "1777:/tmp"; returns false when it is anything else. What is not a file system in memory
   that belongs to us stays as it is, and so does one that cannot be changed: who asked looks at it afterwards. */
bool mode_set(const char *word);

#endif
