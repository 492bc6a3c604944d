/* What sudo runs when it wants a password: gives PID 1 the pipe that sudo reads, and waits until it is done with. */
#ifndef SUDO_ASKPASS_H
#define SUDO_ASKPASS_H

/* Be the program that sudo asks for the password; an exit code. */
int askpass_run(void);

#endif
