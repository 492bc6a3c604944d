#include "look.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* Goes down component by component: an image may have a link in the place of a mount, which leads elsewhere. */
static bool find(char *path, struct stat *found) {
    int folder = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    for (char *part; folder >= 0 && (part = strsep(&path, "/"));) {
        if (!*part) continue;
        int next = openat(folder, part, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        close(folder);
        folder = next;
    }
    bool known = folder >= 0 && !fstat(folder, found) && !S_ISLNK(found->st_mode);
    if (folder >= 0) close(folder);
    return known;
}

/* One line for each path: device, inode and owner, or a dash for what cannot be seen. */
int look_run(int count, char **paths) {
    for (int i = 0; i < count; i++) {
        struct stat found;
        if (!find(paths[i], &found)) puts("-");
        else
            printf("%u:%u %llu %u:%u\n", major(found.st_dev), minor(found.st_dev), (unsigned long long)found.st_ino,
                   found.st_uid, found.st_gid);
    }
    return fflush(stdout) ? 1 : 0;
}
