/* The password of a user in the container's own files. */
#ifndef SUDO_SHADOW_H
#define SUDO_SHADOW_H

#include <sys/types.h>

/* Gives a user of /etc/passwd this password; returns NULL, or why it cannot. */
const char *shadow_set(uid_t uid, const char *password);

#endif
