/* Permissions of new files. */
#ifndef BASE_MODE_H
#define BASE_MODE_H

#include <stdbool.h>
#include <sys/stat.h>

static inline mode_t mode_mask(void) {
    mode_t mask = umask(022);
    umask(mask);
    return mask;
}

/* Of a file for which nobody named any. */
static inline mode_t mode_of_new(void) { return 0666 & ~mode_mask(); }

/* Where users share the task's files, what its owner may write the group may write too. */
static inline mode_t mode_shared(mode_t mode, bool is_folder) {
    if (mode_mask() & S_IWGRP || !(mode & S_IWUSR)) return mode;
    return mode | S_IWGRP | (is_folder ? S_ISGID : 0);
}

#endif
