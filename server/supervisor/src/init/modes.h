/* Gives file systems in memory the modes that were asked for, and a folder on disk its group. */
#ifndef INIT_MODES_H
#define INIT_MODES_H

#include <stdbool.h>
#include <sys/types.h>

/* `word` is "MODE:PATH", as in "1777:/tmp"; returns false when it is anything else. What is not a file system in memory
   that belongs to us stays as it is, and so does one that cannot be changed: who asked looks at it afterwards. */
bool mode_set(const char *word);

/* Gives a folder that belongs to us, and what will be made in it, to `group`, one of ours, which may write to it. A
   folder of somebody else stays as it is, and so does one that cannot be changed. */
void group_set(const char *path, gid_t group);

#endif
