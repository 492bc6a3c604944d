/* `supervisor file …`: what the file tools do, run in the sandbox as one of its own processes, with its user's rights.
   So whatever links and mounts there are lead nowhere that the user could not go. The answer is one reply on standard
   output; docs/protocol.md has its layout. */
#ifndef FILE_FILE_H
#define FILE_FILE_H

/* Run one command; the exit code, 0 when its reply could be written. */
int file_run(int argc, char **argv);

#endif
