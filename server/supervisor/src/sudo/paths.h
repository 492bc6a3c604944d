/* How sudo gets its password. Three parts meet at these paths. PID 1 (password.c) holds the password and has put a
   front (front.c) in the place of the image's own sudo. That sudo runs an askpass program (askpass.c) when it wants
   a password, and only then. The askpass program hands PID 1 the pipe on which sudo waits for its answer. No process
   of the user ever holds the password, and nobody's standard input is touched. */
#ifndef SUDO_PATHS_H
#define SUDO_PATHS_H

#define SUDO_FOLDER "/usr/lib/taskcell"
#define SUDO_REAL SUDO_FOLDER "/sudo"
#define SUDO_ASKPASS SUDO_FOLDER "/askpass"
#define SUDO_SOCKET "/run/taskcell.askpass"

#endif
