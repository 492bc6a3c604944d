#include "facts.h"

#include <fcntl.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "init/modes.h"

enum { TEXT_MAX = 4096, INTERFACES_MAX = 16 };

/* Where the limits of a container stand: in version 2 of cgroups, and in version 1. */
static const char *const LIMITS[][3] = {
    {"memory", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"},
    {"pids", "/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/pids/pids.max"},
    {"cpus", "/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us"},
    {"period", "/dev/null", "/sys/fs/cgroup/cpu/cpu.cfs_period_us"},
};
/* Lines of /proc/self/status. gVisor has neither. */
static const char *const STATUS[] = {"NoNewPrivs", "Seccomp", "CapEff", "CapBnd"};

/* Reads a small file; returns false when it is not there. */
static bool read_file(const char *path, char text[TEXT_MAX]) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, text, TEXT_MAX - 1);
    if (fd >= 0) close(fd);
    if (size <= 0) return false;
    text[size] = 0;
    return true;
}

static void tell_limits(void) {
    char text[TEXT_MAX];
    for (size_t i = 0; i < sizeof LIMITS / sizeof *LIMITS; i++) {
        if (!read_file(LIMITS[i][1], text) && !read_file(LIMITS[i][2], text)) continue;
        text[strcspn(text, "\n")] = 0;
        printf("%s %s\n", LIMITS[i][0], text);
    }
}

static void tell_status(void) {
    char text[TEXT_MAX];
    if (!read_file("/proc/self/status", text)) return;
    char *rest = text;
    for (char *line; (line = strsep(&rest, "\n"));)
        for (size_t i = 0; i < sizeof STATUS / sizeof *STATUS; i++) {
            size_t size = strlen(STATUS[i]);
            if (!strncmp(line, STATUS[i], size) && line[size] == ':')
                printf("%s %s\n", STATUS[i], line + size + 1 + strspn(line + size + 1, " \t"));
        }
}

/* The network interfaces with an address, beside loopback. Linux gives a new network some that have none. */
static void tell_interfaces(void) {
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq all[INTERFACES_MAX];
    struct ifconf config = {.ifc_len = sizeof all, .ifc_req = all};
    int found = ioctl(fd, SIOCGIFCONF, &config) ? -1 : config.ifc_len / (int)sizeof *all;
    if (found < 0) puts("interface ?");
    for (int i = 0; i < found; i++) {
        bool loops = ioctl(fd, SIOCGIFFLAGS, &all[i]) == 0 && all[i].ifr_flags & IFF_LOOPBACK;
        if (!loops) printf("interface %.*s\n", IFNAMSIZ, all[i].ifr_name);
    }
    if (fd >= 0) close(fd);
}

/* Mode, owner, kind of file system, its size and whether we may write there; a dash for what cannot be seen. */
static void tell_path(const char *path) {
    struct stat found;
    struct statfs system;
    struct statvfs bounds;
    if (stat(path, &found) || statfs(path, &system) || statvfs(path, &bounds)) {
        puts("at -");
        return;
    }
    bool writes = access(path, W_OK | X_OK) == 0;
    printf("at %o %u:%u %llx %llu %s %s\n", found.st_mode & 07777, found.st_uid, found.st_gid,
           (unsigned long long)system.f_type & 0xffffffff, (unsigned long long)bounds.f_blocks * bounds.f_frsize,
           bounds.f_flag & ST_RDONLY ? "ro" : "rw", writes ? "writes" : "reads");
}

/* A path may have a mode before it, as in "700:/data", which a folder of ours in memory gets first. */
int facts_run(int count, char **paths) {
    printf("user %u:%u\n", geteuid(), getegid());
    tell_status();
    tell_limits();
    tell_interfaces();
    for (int i = 0; i < count; i++) tell_path(mode_set(paths[i]) ? strchr(paths[i], ':') + 1 : paths[i]);
    return fflush(stdout) ? 1 : 0;
}
