/* `supervisor file …` does the work of the file tools. It runs in the sandbox as an ordinary process with its user's
   rights, so links and mounts lead nowhere that the user could not go. It writes one reply to standard output;
   docs/protocol.md has the layout. */
#ifndef FILE_FILE_H
#define FILE_FILE_H

/* Runs one command and returns the exit code, which is 0 when the reply could be written. */
int file_run(int argc, char **argv);

#endif
