#include "transfer/clone.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

enum {
    PIECE = 1 << 18,    /* bytes at once: they stay in a processor's cache */
    NAMES_MAX = 1 << 16 /* bytes of the names of a file's extended attributes (XATTR_LIST_MAX), and of one's value */
};

/* Only the user's own attributes and access lists: the others are the kernel's. */
static bool copy_attributes(int from, int to) {
    static char names[NAMES_MAX], value[NAMES_MAX];
    ssize_t size = flistxattr(from, names, sizeof names);
    if (size < 0) return errno == ENOTSUP;
    for (char *name = names; name < names + size; name += strlen(name) + 1) {
        if (strncmp(name, "user.", 5) && strncmp(name, "system.posix_acl_", 17)) continue;
        ssize_t length = fgetxattr(from, name, value, sizeof value);
        if (length >= 0 && fsetxattr(to, name, value, (size_t)length, 0) && errno != ENOTSUP) return false;
    }
    return true;
}

bool clone_finish(int from, int to, const struct stat *info) {
    const struct timespec times[2] = {info->st_atim, info->st_mtim};
    return !fchown(to, info->st_uid, info->st_gid) && copy_attributes(from, to) && !fchmod(to, info->st_mode & 07777) &&
           !futimens(to, times);
}

bool clone_finish_name(int folder, const char *name, const struct stat *info) {
    const struct timespec times[2] = {info->st_atim, info->st_mtim};
    return !fchownat(folder, name, info->st_uid, info->st_gid, AT_SYMLINK_NOFOLLOW) &&
           (S_ISLNK(info->st_mode) || !fchmodat(folder, name, info->st_mode & 07777, 0)) &&
           !utimensat(folder, name, times, AT_SYMLINK_NOFOLLOW);
}

/* --- content --- */

static bool copy_piece(int from, int to, off_t at, off_t end) {
    static char data[PIECE];
    while (at < end) {
        ssize_t got = pread(from, data, end - at < PIECE ? (size_t)(end - at) : PIECE, at);
        if (got < 0) return false;
        if (!got) return true; /* it has become shorter */
        for (ssize_t put = 0; put < got;) {
            ssize_t count = pwrite(to, data + put, (size_t)(got - put), at + put);
            if (count < 0) return false;
            put += count;
        }
        at += got;
    }
    return true;
}

/* Leaves holes where the file has them. */
bool clone_content(int from, int to, off_t size) {
    for (off_t at = 0; at < size;) {
        off_t data = lseek(from, at, SEEK_DATA), hole = size;
        if (data < 0 && errno == ENXIO) break;
        if (data < 0) data = at;
        else hole = lseek(from, data, SEEK_HOLE);
        if (hole < 0 || hole > size) hole = size;
        if (!copy_piece(from, to, data, hole)) return false;
        at = hole;
    }
    return !ftruncate(to, size);
}
