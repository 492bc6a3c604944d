#ifndef BRIDGE_H
#define BRIDGE_H

/* The bridge carries bytes between our stdin and stdout and the supervisor's socket until either side ends. Returns
   the exit code. */
int bridge_run(const char *path);

#endif
