#include "transfer/beneath.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "file/reply.h"

enum { TURNS = 100 }; /* EAGAIN: something was renamed meanwhile */

/* Without openat2(2): part by part, through no link. */
static int walk(int root, const char *path, int flags) {
    int at = dup(root);
    char part[NAME_MAX + 1];
    while (at >= 0) {
        size_t size = strcspn(path, "/");
        errno = size > NAME_MAX ? ENAMETOOLONG : EXDEV;
        if (size > NAME_MAX || !size || (size == 2 && path[0] == '.' && path[1] == '.')) break;
        memcpy(part, path, size);
        part[size] = 0;
        bool last = !path[size];
        int next = openat(at, part, (last ? flags : O_PATH | O_DIRECTORY) | O_NOFOLLOW | O_CLOEXEC);
        if (next < 0 && errno == ELOOP) errno = EXDEV;
        int why = errno;
        close(at);
        errno = why;
        if (last || next < 0) return next;
        at = next;
        path += size + 1;
    }
    int why = errno;
    if (at >= 0) close(at);
    errno = why;
    return -1;
}

int open_beneath(int root, const char *path, int flags) {
    struct open_how how = {.flags = (unsigned)(flags | O_CLOEXEC), .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS};
    for (int turn = 0; turn < TURNS; turn++) {
        int fd = (int)syscall(SYS_openat2, root, path, &how, sizeof how);
        if (fd >= 0) return fd;
        if (errno == ENOSYS || errno == EPERM) return walk(root, path, flags);
        if (errno != EAGAIN && errno != EINTR) return -1;
    }
    return -1;
}

static bool make_folders(int root, char *folder) {
    for (char *at = folder;; at++) {
        if (*at && *at != '/') continue;
        char kept = *at;
        *at = 0;
        const char *name = strrchr(folder, '/');
        int parent = root;
        if (name) {
            char *cut = folder + (name - folder);
            *cut = 0;
            parent = open_beneath(root, folder, O_PATH | O_DIRECTORY);
            *cut = '/';
        }
        bool made = parent >= 0 && (!mkdirat(parent, name ? name + 1 : folder, 0777) || errno == EEXIST);
        int why = errno;
        if (name && parent >= 0) close(parent);
        errno = why;
        *at = kept;
        if (!made || !kept) return made;
    }
}

int open_parent(int root, const char *path, bool make, const char **name) {
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    *name = slash ? slash + 1 : path;
    if (!slash) return dup(root);
    errno = ENAMETOOLONG;
    if ((size_t)(slash - path) >= sizeof folder) return -1;
    memcpy(folder, path, (size_t)(slash - path));
    folder[slash - path] = 0;
    int fd = open_beneath(root, folder, O_PATH | O_DIRECTORY);
    if (fd >= 0 || errno != ENOENT || !make || !make_folders(root, folder)) return fd;
    return open_beneath(root, folder, O_PATH | O_DIRECTORY);
}

int refuse_path(const char *path) {
    return errno == EXDEV ? refuse((enum refusal)REFUSED_OUTSIDE, 0, path) : refuse_system(path);
}
