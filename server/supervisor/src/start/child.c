#include "start/child.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/protocol.h"
#include "start/hide.h"

static const char DEFAULT_PATH[] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
static const char OOM_SCORE[] = "1000"; /* the kernel kills the command first, never PID 1 */

static bool close_span(unsigned first, unsigned last) {
    return first > last || syscall(SYS_close_range, first, last, 0) == 0;
}

static bool contains(const int *keep, size_t count, int fd) {
    for (size_t i = 0; i < count; i++)
        if (keep[i] == fd) return true;
    return false;
}

/* Kernels before 5.9, gVisor and old seccomp profiles have no close_range. */
static void close_listed(const int *keep, size_t count) {
    DIR *listing = opendir("/proc/self/fd");
    struct dirent *name;
    while (listing && (name = readdir(listing))) {
        int fd = atoi(name->d_name);
        if (name->d_name[0] != '.' && fd != dirfd(listing) && !contains(keep, count, fd)) close(fd);
    }
    if (listing) closedir(listing);
}

void close_except(const int *keep, size_t count) {
    unsigned next = 0;
    bool closed = true;
    for (size_t i = 0; i < count; i++) {
        unsigned fd = (unsigned)keep[i];
        closed = closed && (fd == next || close_span(next, fd - 1));
        next = fd + 1;
    }
    if (!closed || !close_span(next, UINT_MAX)) close_listed(keep, count);
}

void signals_reset(void) {
    /* We use the system call, because a C library keeps two or three signals to itself, and who started us by
       posix_spawn may have left those ignored. All zeros mean SIG_DFL on every architecture. */
    static const unsigned long plain[8];
    for (int number = 1; number <= SIGNAL_MAX; number++) syscall(SYS_rt_sigaction, number, plain, NULL, SIGNAL_MAX / 8);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

void launch_fault(const struct launch *l, int stage, int error, char *text, size_t size) {
    const char *why = strerror(error);
    if (stage == STAGE_EXEC) snprintf(text, size, "cannot execute '%.150s': %s", l->program, why);
    else if (stage == STAGE_CWD) snprintf(text, size, "cannot enter the working directory '%.150s': %s", l->cwd, why);
    else if (stage == STAGE_USER) snprintf(text, size, "cannot become the user '%.100s': %s", l->user, why);
    else if (stage == STAGE_PTY) snprintf(text, size, "cannot open a terminal: %s", why);
    else snprintf(text, size, "cannot start a process: %s", why);
}

static _Noreturn void fail(int errors, int stage) {
    struct fault fault = {stage, errno};
    (void)!write(errors, &fault, sizeof fault);
    _exit(127);
}

void offer_to_oom(void) {
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0) return;
    (void)!write(fd, OOM_SCORE, sizeof OOM_SCORE - 1);
    close(fd);
}

static bool place(int fd, int target) {
    if (fd == target) return fcntl(fd, F_SETFD, 0) == 0;
    return dup2(fd, target) == target;
}

/* stdio to 0..2, `errors` out of their way: its new number, or -1. */
static int place_files(const struct launch *l, int errors) {
    errors = fcntl(errors, F_DUPFD_CLOEXEC, 3);
    int in = l->in >= 0 ? l->in : open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (errors < 0 || in < 0 || !place(in, 0) || !place(l->out, 1) || !place(l->err, 2)) return -1;
    return errors;
}

static void drop_bounding_set(uint64_t keep) {
    /* Reading fails at the first capability that the kernel does not know. It costs a fraction of dropping, and a
       container's set is small. Dropping fails where we may drop nothing. */
    for (unsigned long cap = 0;; cap++) {
        int held = prctl(PR_CAPBSET_READ, cap, 0, 0, 0);
        bool kept = cap < 64 && keep >> cap & 1;
        if (held < 0 || (held && !kept && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0))) return;
    }
}

static bool drop_capabilities(void) {
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct none[2] = {{0}};
    return syscall(SYS_capset, &header, none) == 0;
}

bool become(const struct identity *who, uint64_t capabilities) {
    drop_bounding_set(capabilities);
    if (who->change && (setgroups(who->group_count, who->groups) || setresgid(who->gid, who->gid, who->gid) ||
                        setresuid(who->uid, who->uid, who->uid)))
        return false;
    if (!drop_capabilities()) return false;
    if (!who->change || who->uid == 0) return true;
    /* Root must be out of reach now, whatever the kernel or its security modules made of the calls above. */
    if (setresuid((uid_t)-1, 0, (uid_t)-1) == 0) {
        errno = EPERM;
        return false;
    }
    return true;
}

static const char *search_path(char *const *env) {
    for (; *env; env++)
        if (!strncmp(*env, "PATH=", 5)) return *env + 5;
    return DEFAULT_PATH;
}

/* As execvpe(3), but by the PATH of the environment that the program gets; returns on failure only. */
static void execute(const char *name, char *const *argv, char *const *env) {
    if (strchr(name, '/') || !*name) {
        execve(name, argv, env);
        return;
    }
    bool denied = false;
    char path[PATH_MAX];
    for (const char *at = search_path(env), *end; at; at = *end ? end + 1 : NULL) {
        end = strchrnul(at, ':');
        int length = (int)(end - at);
        /* An empty element of PATH means the current directory. */
        int size = snprintf(path, sizeof path, "%.*s%s%s", length, at, length ? "/" : "./", name);
        if (size >= (int)sizeof path) continue;
        execve(path, argv, env);
        if (errno == EACCES) denied = true;
        else if (errno != ENOENT && errno != ENOTDIR) return;
    }
    errno = denied ? EACCES : ENOENT;
}

void child_run(const struct launch *l, int errors) {
    /* The leader has reset what signals do, and keeps them blocked. */
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    /* A terminal needs a session. Without a terminal, a group is enough for signals. */
    if (l->pty ? setsid() < 0 : setpgid(0, 0) < 0) fail(errors, STAGE_FORK);
    int moved = place_files(l, errors);
    if (moved < 0) fail(errors, STAGE_FORK);
    errors = moved;
    const int kept[] = {0, 1, 2, errors};
    close_except(kept, 4);
    if (l->pty && ioctl(0, TIOCSCTTY, 0)) fail(errors, STAGE_PTY);
    if (geteuid()) {
        /* The /proc files of a process that is not dumpable belong to root. Our secrets have been wiped by now. */
        prctl(PR_SET_DUMPABLE, 1);
        offer_to_oom();
    }
    setpriority(PRIO_PROCESS, 0, l->nice);
    setrlimit(RLIMIT_NOFILE, &l->files);
    if (!become(&l->who, l->capabilities)) fail(errors, STAGE_USER);
    umask(l->mask);
    if (chdir(l->cwd)) fail(errors, STAGE_CWD);
    bool hides = l->hidden && ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0;
    if (l->hidden && !hides) (void)!write(errors, &(struct fault){.stage = STAGE_SEEN}, sizeof(struct fault));
    execute(l->program, hides ? l->hidden->argv : l->argv, hides ? l->hidden->env : l->env);
    fail(errors, STAGE_EXEC);
}
