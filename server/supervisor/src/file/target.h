/* A file to replace: found through its links, locked, and replaced as a whole. */
#ifndef FILE_TARGET_H
#define FILE_TARGET_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

/* A file to replace: its folder, its name there, and what stands there now. */
struct target {
    int folder, file; /* `file` holds the lock; -1 where nothing is there, or it may not be read */
    char name[256];
    bool exists;
    struct stat info;
};

/* Find where a path leads to, make its folders if that is wanted, and lock what stands there; false: told. */
bool target_find(const char *path, bool make_folders, struct target *t);
/* Put `size` bytes in its place, all or nothing; `strict`: refuse when it changed since `target_find`. The exit code
   of a refusal, or -1 when it is done. */
int target_replace(struct target *t, const void *data, size_t size, bool strict);
void target_close(struct target *t);

#endif
