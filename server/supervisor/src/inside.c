#include "inside.h"

#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "start/user.h"

extern char **environ;

int inside_environment(void) {
    for (char **entry = environ; *entry; entry++) fwrite(*entry, 1, strlen(*entry) + 1, stdout);
    return fflush(stdout) ? 1 : 0;
}

bool inside_become(const char *user, const char *folder) {
    struct identity who;
    const char *fault = user_resolve(user, &who);
    if (!fault && setgroups(who.group_count, who.groups)) fault = "its groups cannot be set";
    if (!fault && (setgid(who.gid) || setuid(who.uid))) fault = "it cannot be changed to";
    if (!fault && chdir(folder)) fault = "the folder cannot be entered";
    if (fault) fprintf(stderr, "%s: %s\n", user, fault);
    return !fault;
}
