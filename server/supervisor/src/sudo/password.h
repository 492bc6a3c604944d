/* PID 1's part of sudo: putting the front in its place, and handing out the password to sudo alone. */
#ifndef SUDO_PASSWORD_H
#define SUDO_PASSWORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/request.h"

/* What PID 1 knows of sudo in its sandbox; all zero where the server never asked for it. */
struct sudo {
    bool ready;
    int socket;            /* askpass programs send to it */
    uid_t uid;             /* whose password it is */
    uint64_t capabilities; /* those that programs may get by becoming root */
    size_t size;
    char password[PASSWORD_MAX + 1]; /* with the newline that ends it on sudo's side */
};

/* Let a user become root by sudo, with a password that only sudo gets; NULL when `sudo->socket` is open, or why not. */
const char *password_set_up(struct sudo *sudo, const struct sudo_request *request);
/* An askpass program asks for the password. */
void password_asked(const struct sudo *sudo);

#endif
