/* Which file it was that a command read or wrote, whatever name led to it. */
#ifndef FILE_WHERE_H
#define FILE_WHERE_H

#include "base/bytes.h"

/* Appends the real path of an open file, and what identifies it for as long as it is there. */
void put_where(struct buffer *reply, int fd);

#endif
