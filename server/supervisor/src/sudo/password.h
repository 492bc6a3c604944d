/* PID 1's part of sudo: it puts the front in its place, and gives the password to sudo alone. */
#ifndef SUDO_PASSWORD_H
#define SUDO_PASSWORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/request.h"

/* What the server is told when sudo did not take the password. */
#define SUDO_REFUSED "sudo refuses its password"

/* What PID 1 knows about sudo in its sandbox; all zero when the server never asked for it. */
struct sudo {
    bool ready;
    int socket;            /* askpass programs send to it */
    uid_t uid;             /* whose password it is */
    uint64_t capabilities; /* that programs may get by becoming root */
    size_t size;
    char password[PASSWORD_MAX + 1]; /* with the newline that ends it for sudo */
    pid_t asker;  /* the sudo that asked last */
    int times;    /* that it has asked in a row */
    bool refused; /* a sudo has tried the password again and again: it is not the user's, and no other sudo gets it */
};

/* Lets a user become root by sudo, with a password that only sudo gets. Returns NULL with `sudo->socket` open, or
   why it cannot be. */
const char *password_set_up(struct sudo *sudo, const struct sudo_request *request);
/* Answers an askpass program that asks for the password. Returns whether it has just become clear that the password is
   not the user's. */
bool password_asked(struct sudo *sudo);

#endif
