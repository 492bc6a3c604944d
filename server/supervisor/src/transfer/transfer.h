/* Whole files and folders on their way into a workspace and out of it, as streams on standard input and output. */
#ifndef TRANSFER_TRANSFER_H
#define TRANSFER_TRANSFER_H

/* Runs `supervisor transfer …` and returns its exit code. It works below the current folder alone. */
int transfer_run(int argc, char **argv);

#endif
