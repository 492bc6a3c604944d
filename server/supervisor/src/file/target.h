/* Finding the file that is to change: through its links, and locked. */
#ifndef FILE_TARGET_H
#define FILE_TARGET_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

/* A file to change: its folder, its name in it, and what stands there now. */
struct target {
    int folder, file; /* `file` holds the lock; it is -1 when nothing is there or it may not be read */
    char name[256];
    bool exists;
    struct stat info;
};

/* Finds where a path leads, makes missing folders if `make_folders`, and locks what stands there. Returns false when
   the refusal has been written. */
bool target_find(const char *path, bool make_folders, struct target *t);
void target_close(struct target *t);
bool same_file(const struct stat *a, const struct stat *b);

#endif
