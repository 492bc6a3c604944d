/* What a listing leaves out: the rules of .gitignore files, and folders that are heavy and seldom wanted. */
#ifndef FILE_IGNORE_H
#define FILE_IGNORE_H

#include <stdbool.h>
#include <stddef.h>

/* The rules of one folder's .gitignore, and those of the folders above. */
struct ignore {
    const struct ignore *above;
    char *rules[1000], *text;
    unsigned count;
    size_t base;        /* where the names below that folder begin in a path of the listing */
    const char *prefix; /* what stands before a path of the listing, for a folder above the listed one */
};

/* Reads the .gitignore of an open folder, if it has one. */
void ignore_read(struct ignore *i, int folder, const struct ignore *above, size_t base, const char *prefix);
/* Reads those of the folders above `path`, up to the one that is a repository. */
const struct ignore *ignore_above(const char *path);
void ignore_free(struct ignore *i);
/* Whether an entry is left out; `path` is relative to the listed folder, and `name` its last part. */
bool ignore_has(const struct ignore *i, const char *path, const char *name, bool is_folder);

#endif
