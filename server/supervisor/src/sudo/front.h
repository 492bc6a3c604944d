/* The front stands where commands look for sudo, and executes the image's own with -A and without -S, which exclude
   each other. */
#ifndef SUDO_FRONT_H
#define SUDO_FRONT_H

#include <stdbool.h>

/* Returns whether a path is that of a sudo: the front, or the program whose place it takes. */
bool front_is(const char *path);
/* Executes the image's own sudo with an askpass program; returns an exit code on failure only. */
int front_run(int argc, char **argv);

#endif
