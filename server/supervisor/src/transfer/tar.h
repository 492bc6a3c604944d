/* Headers of tar archives, as POSIX.1-2001 (pax) and GNU tar write them. */
#ifndef TRANSFER_TAR_H
#define TRANSFER_TAR_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TAR_BLOCK = 512 };

struct tar_header {
    char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], sum[8], type, link[100], magic[6], version[2];
    char user[32], group[32], major[8], minor[8], prefix[155], rest[12];
};

/* One entry; `sparse_*` are of GNU's sparse format 1.0. */
struct entry {
    char type;
    char name[PATH_MAX], link[PATH_MAX];
    uint64_t size, real_size;
    int64_t mtime;
    uint32_t mode;
    bool sparse;
};

/* Writes the headers of an entry to the outlet. Returns false when the reader has gone. */
bool tar_write(const struct entry *e);
bool tar_end(void);
/* Appends the record `LENGTH key=value\n` of an extended header, and returns the size so far. */
size_t tar_record(char *to, size_t at, const char *key, const char *value);
/* Takes what a block says, unless an extended header before it said something else; `known` has the names of what did.
   Returns NULL, or what is wrong with it. */
const char *tar_parse(const struct tar_header *h, struct entry *e, unsigned known);
/* The same for the records of an extended header of `size` bytes. */
const char *tar_parse_pax(char *data, size_t size, struct entry *e, unsigned *known);

enum { KNOWN_NAME = 1, KNOWN_LINK = 2, KNOWN_SIZE = 4, KNOWN_MTIME = 8 };

#endif
