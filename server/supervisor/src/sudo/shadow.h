/* A user's password in the container's own files. */
#ifndef SUDO_SHADOW_H
#define SUDO_SHADOW_H

#include <sys/types.h>

/* Give a user of /etc/passwd this password; NULL, or why it cannot be. */
const char *shadow_set(uid_t uid, const char *password);

#endif
