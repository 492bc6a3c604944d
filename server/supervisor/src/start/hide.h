/* A program's last argument, out of sight of those who search argument lists.

   `pkill -f PATTERN` in a shell's command must not find that very shell. So the command is given as a string of the
   environment, which no such search reads, and once the program's memory is there, before its first instruction, the
   last argument is made to point to it. */
#ifndef START_HIDE_H
#define START_HIDE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct hidden {
    char **argv, **env; /* to be executed with: the last argument empty, and its text behind the environment */
    size_t argc, envc;
    size_t length; /* of the text */
};

/* In one piece of memory (one free()), which refers to the strings of argv and env; NULL: no memory. */
struct hidden *hide_words(char **argv, char **env);
/* Put the text in its place in a child that has asked to be traced and has executed a program; it runs on. False: that
   program cannot be given it so, and has been killed before it did anything. */
bool hide_settle(pid_t child, const struct hidden *h);

#endif
