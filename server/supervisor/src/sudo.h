/* How sudo comes to its password: three parts that meet at these paths.

   PID 1 (sudo.c) holds the password and has put a front (front.c) in the place of the image's own sudo, which asks an
   askpass program (askpass.c) whenever it wants a password, and only then. That program hands PID 1 the pipe on which
   sudo waits for its answer. No process of the user ever holds the password, and nobody's standard input is touched. */
#ifndef SUDO_H
#define SUDO_H

#include <stdbool.h>

#define SUDO_FOLDER "/usr/lib/taskcell"
#define SUDO_REAL SUDO_FOLDER "/sudo"
#define SUDO_ASKPASS SUDO_FOLDER "/askpass"
#define SUDO_SOCKET "/run/taskcell.askpass"

/* Whether a path is that of a sudo: the front's, or the place that it takes. */
bool front_is(const char *path);
/* Be the image's own sudo, with a program to ask for the password; returns an exit code on failure only. */
int front_run(int argc, char **argv);
/* Be the program that sudo asks for the password; an exit code. */
int askpass_run(void);

#endif
