/* Every file command writes one reply to standard output: what it did, or why it refused. */
#ifndef FILE_REPLY_H
#define FILE_REPLY_H

#include <sys/stat.h>

#include "base/bytes.h"

enum {
    REPLY_DONE = 0,
    REPLY_REFUSED = 1,
};

enum refusal {
    REFUSED_SYSTEM = 1,   /* errno says why */
    REFUSED_FOLDER = 2,   /* it is a folder, and a file is needed */
    REFUSED_KIND = 3,     /* it is neither a file nor a folder; the text says what it is */
    REFUSED_SIZE = 4,     /* it is too large; the number is its size */
    REFUSED_CHANGED = 5,  /* it changed meanwhile */
    REFUSED_LOCKED = 6,   /* somebody else holds its lock */
    REFUSED_INPUT = 10,   /* standard input ended early or late */
    REFUSED_PAST_END = 11, /* there is no such line; the number is how many there are */
    REFUSED_TIME = 12,    /* it takes too long */
    REFUSED_TORN = 13,    /* writing in place broke off: the file may have parts of both contents */
};

/* Writes a reply, frees it, and returns the exit code. */
int reply_send(struct buffer *reply);
/* Each of these writes a refusal and returns the exit code. */
int refuse(enum refusal why, uint64_t number, const char *text);
/* The reason is errno; `text` names what could not be done, or is empty. */
int refuse_system(const char *text);
/* The reason is the kind of file that stands at a path. */
int refuse_mode(mode_t mode);

#endif
