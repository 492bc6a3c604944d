/* `supervisor file …`: what the file tools do, run in the sandbox as one of its own processes, with its user's rights.
   So whatever links and mounts there are lead nowhere that the user could not go. The answer is one reply on standard
   output; docs/protocol.md has its layout. */
#ifndef FILES_H
#define FILES_H

#include <sys/stat.h>

#include "bytes.h"

enum {
    REPLY_DONE = 0,
    REPLY_REFUSED = 1,
    SHOWN_PLACES = 20, /* of those where an edit could mean; more are only counted */
    SHOWN_TEXT = 160,  /* bytes of a place's line */
};

enum refusal {
    REFUSED_SYSTEM = 1,   /* errno says why */
    REFUSED_FOLDER = 2,   /* a folder, where a file is needed */
    REFUSED_KIND = 3,     /* neither a file nor a folder; the text says what */
    REFUSED_SIZE = 4,     /* larger than may be taken; the number is its size */
    REFUSED_CHANGED = 5,  /* it changed in between */
    REFUSED_LOCKED = 6,   /* somebody else holds its lock */
    REFUSED_ABSENT = 7,   /* the text to replace is not there; the number is a line that comes near, or 0 */
    REFUSED_PLACES = 8,   /* it is there another number of times; the number says how often; places follow */
    REFUSED_OVERLAP = 9,  /* its places overlap */
    REFUSED_INPUT = 10,   /* standard input ended early */
    REFUSED_PAST_END = 11, /* there is no such line; the number is how many there are */
    REFUSED_TIME = 12,    /* it takes too long */
};

/* A file to replace: its folder, its name there, and what stands there now. */
struct target {
    int folder, file; /* `file` holds the lock; -1 where nothing is there, or it may not be read */
    char name[256];
    bool exists;
    struct stat info;
};

/* The commands; each writes one reply and returns the exit code, 0 when the reply could be written. */
int files_run(int argc, char **argv);
int files_read(char **argv);
int files_fetch(char **argv);
int files_write(char **argv);
int files_edit(char **argv);
int files_list(int argc, char **argv);

int reply_send(struct buffer *reply);
int refuse(enum refusal why, uint64_t number, const char *text);
/* By errno; `text` names what could not be done, or is empty. */
int refuse_system(const char *text);
/* What keeps a path from being a regular file; the exit code. */
int refuse_mode(mode_t mode);

uint64_t parse_count(const char *text);
/* All of a file, or of standard input, into `out`, no more than `most` bytes; 0, or why not. */
enum refusal read_whole(int fd, size_t most, struct buffer *out);
/* A regular file for reading, or -1 when the refusal was told. */
int open_regular(const char *path, struct stat *info);

/* Find where a path leads to, make its folders if that is wanted, and lock what stands there; false: told. */
bool target_find(const char *path, bool make_folders, struct target *t);
/* Put `size` bytes in its place, all or nothing; `strict`: refuse when it changed since `target_find`. The exit code
   of a refusal, or -1 when it is done. */
int target_replace(struct target *t, const void *data, size_t size, bool strict);
void target_close(struct target *t);

#endif
