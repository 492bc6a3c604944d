/* The user of a process: SPAWN's `user`, looked up in the container's /etc/passwd and /etc/group. */
#ifndef START_USER_H
#define START_USER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum { GROUPS_MAX = 64 }; /* more supplementary groups are left out */

struct identity {
    bool change; /* false: keep the supervisor's own user */
    uid_t uid;
    gid_t gid;
    gid_t groups[GROUPS_MAX];
    size_t group_count;
};

/* Returns NULL, or why there is no such user. */
const char *user_resolve(const char *words, struct identity *who);
/* Returns a small file as text with a NUL at its end, to be freed, or NULL when there is none. */
char *database_read(const char *path);
/* Finds the name of a user in /etc/passwd; returns false when there is none or it does not fit `size`. */
bool user_name(uid_t uid, char *name, size_t size);
/* Returns whether this process may change its user. */
bool user_can_change(void);

#endif
