/* `supervisor facts`: what holds for whoever runs it in a sandbox. */
#ifndef FACTS_H
#define FACTS_H

int facts_run(int count, char **paths);

#endif
