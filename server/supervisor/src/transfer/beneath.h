/* Opening what is below a folder: no `..` and no link leads out of it. */
#ifndef TRANSFER_BENEATH_H
#define TRANSFER_BENEATH_H

#include <stdbool.h>

enum { REFUSED_OUTSIDE = 20, REFUSED_ARCHIVE = 21 };

/* As openat(2); fails with EXDEV for what leads out. Where the kernel cannot tell, a link on the way is refused. */
int open_beneath(int root, const char *path, int flags);
/* Opens the folder that holds `path`, and makes what is missing of it if `make`. `name` becomes the last part. Returns
   -1 with errno. */
int open_parent(int root, const char *path, bool make, const char **name);
/* Writes a refusal for errno and returns the exit code. */
int refuse_path(const char *path);

#endif
