#include "init/modes.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

enum { MODE_MAX = 07777 };

static bool is_ours(int fd) {
    struct statfs system;
    struct stat folder;
    return !fstatfs(fd, &system) && system.f_type == TMPFS_MAGIC && !fstat(fd, &folder) && folder.st_uid == geteuid();
}

/* A container's runtime gives a file system in memory the mode of the folder that it covers, whatever its options say:
   an image whose /tmp only root may write to would be without one. */
bool mode_set(const char *word) {
    char *end;
    unsigned long mode = strtoul(word, &end, 8);
    if (end == word || end[0] != ':' || end[1] != '/' || mode > MODE_MAX) return false;
    int fd = open(end + 1, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return true;
    if (is_ours(fd)) (void)!fchmod(fd, (mode_t)mode);
    close(fd);
    return true;
}

/* A volume of a node's folder, or of NFS, is given to no group by the kubelet, as other volumes are. */
void group_set(const char *path, gid_t group) {
    struct stat folder;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return;
    if (!fstat(fd, &folder) && folder.st_uid == geteuid() && folder.st_gid != group && !fchown(fd, (uid_t)-1, group))
        (void)!fchmod(fd, (folder.st_mode & MODE_MAX) | S_ISGID | S_IRWXG);
    close(fd);
}
