/* Says what stands at paths of the container, for a server that compares it with what it allowed to be mounted. */
#ifndef LOOK_H
#define LOOK_H

int look_run(int count, char **paths);

#endif
