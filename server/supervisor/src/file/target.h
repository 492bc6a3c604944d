/* Replacing a file: it is found through its links, locked, and replaced as a whole. */
#ifndef FILE_TARGET_H
#define FILE_TARGET_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

/* A file to replace: its folder, its name in it, and what stands there now. */
struct target {
    int folder, file; /* `file` holds the lock; it is -1 when nothing is there or it may not be read */
    char name[256];
    bool exists;
    struct stat info;
};

/* Finds where a path leads, makes missing folders if `make_folders`, and locks what stands there. Returns false when
   the refusal has been written. */
bool target_find(const char *path, bool make_folders, struct target *t);
/* Replaces the content by `size` bytes, all or nothing. With `strict` it refuses when the file has changed since
   `target_find`. Returns the exit code of a refusal, or -1 when it is done. */
int target_replace(struct target *t, const void *data, size_t size, bool strict);
void target_close(struct target *t);

#endif
