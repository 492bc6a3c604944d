/* `transfer` beside the channel, for a server that has us executed in the sandbox from outside, as root. */
#ifndef APART_H
#define APART_H

/* Become a user as a command does, enter a folder, and transfer from there. Returns the exit code. */
int apart_run(int argc, char **argv);

#endif
