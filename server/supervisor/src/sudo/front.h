/* Stands where commands look for sudo, and becomes the image's own: with -A, and without -S, which goes not with it. */
#ifndef SUDO_FRONT_H
#define SUDO_FRONT_H

#include <stdbool.h>

/* Whether a path is that of a sudo: the front's, or the place that it takes. */
bool front_is(const char *path);
/* Be the image's own sudo, with a program to ask for the password; returns an exit code on failure only. */
int front_run(int argc, char **argv);

#endif
