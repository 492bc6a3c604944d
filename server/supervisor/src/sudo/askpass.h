/* sudo runs this program when it wants a password: it gives PID 1 the pipe that sudo reads, and waits for PID 1 to
   close it. */
#ifndef SUDO_ASKPASS_H
#define SUDO_ASKPASS_H

/* Runs the askpass program; returns the exit code. */
int askpass_run(void);

#endif
