/* Whom a process runs as: the words of SPAWN's `user`, by the container's /etc/passwd and /etc/group. */
#ifndef START_USER_H
#define START_USER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum { GROUPS_MAX = 64 }; /* supplementary groups beyond these are left out */

struct identity {
    bool change; /* false: stay what the supervisor is */
    uid_t uid;
    gid_t gid;
    gid_t groups[GROUPS_MAX];
    size_t group_count;
};

/* NULL, or why there is no such user. */
const char *user_resolve(const char *words, struct identity *who);
/* The whole of a small file as text with a NUL at its end, to be freed; NULL where there is none. */
char *database_read(const char *path);
/* The name of a user in /etc/passwd; false where there is none, or it is longer than `size`. */
bool user_name(uid_t uid, char *name, size_t size);
/* May this process become somebody else? */
bool user_can_change(void);

#endif
