/* Replacing the content of a target, or appending to it. */
#ifndef FILE_REPLACE_H
#define FILE_REPLACE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "file/target.h"

/* Why a file was written in place, and not replaced by a new one as a whole. */
enum place {
    PLACE_NOT = 0,
    PLACE_LINKS = 1,  /* it has other names */
    PLACE_OWNER = 2,  /* it belongs to somebody else, or to a group that we are not in */
    PLACE_FOLDER = 3, /* nothing can be made in its folder */
    PLACE_MOUNT = 4,  /* it is a mount of its own */
    PLACE_OPEN = 5,   /* a running program has it open for writing, and would go on in the old one */
};

/* The new content, or what to append. `mode` -1 keeps the mode that is there. */
struct change {
    const void *data;
    size_t size;
    bool append;
    int mode;
};

/* Makes the change, all of it or none, and tells how in `place`. It refuses when the file has changed since
   `target_find`. Returns the exit code of a refusal, or -1 when it is done. */
int target_change(struct target *t, const struct change *c, enum place *place);
/* The mode that the file should have after the change. */
mode_t target_mode(const struct target *t, const struct change *c);

#endif
