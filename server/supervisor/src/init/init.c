#include "init/init.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/spool.h"
#include "base/tree.h"
#include "init/cgroup.h"
#include "init/limits.h"
#include "init/loop.h"
#include "init/report.h"
#include "init/supervisor.h"
#include "init/tunnel.h"
#include "init/watch.h"
#include "start/child.h"
#include "start/user.h"

enum {
    BACKLOG = 16,
    SPOOL_SHARE = 4,    /* spools take at most a quarter of the sandbox's memory */
    NICE_DISTANCE = 10, /* about ten times the processor time of a process that we start */
};
static const uint64_t SPOOL_MAX = 256 << 20;

static int complain(const char *what, const char *path) {
    fprintf(stderr, "supervisor: %s '%s': %s\n", what, path, strerror(errno));
    return -1;
}

/* The socket's folder must be ours alone: processes of the sandbox must not even reach the socket. */
static int check_folder(const char *path) {
    char folder[sizeof((struct sockaddr_un *)0)->sun_path];
    const char *slash = strrchr(path, '/');
    if (!slash) return 0;
    size_t size = slash == path ? 1 : (size_t)(slash - path);
    memcpy(folder, path, size);
    folder[size] = 0;
    struct stat info;
    if (mkdir(folder, 0700) && errno != EEXIST) return complain("cannot create the folder", folder);
    if (stat(folder, &info)) return complain("cannot use the folder", folder);
    errno = EPERM;
    bool ours = info.st_uid == geteuid() && !(info.st_mode & 077);
    if (!ours) return complain("the socket needs a private folder, not", folder);
    return 0;
}

/* A supervisor that was killed leaves a socket that nobody listens on. */
static void remove_stale(const struct sockaddr_un *address) {
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)address, sizeof *address) && errno == ECONNREFUSED)
        unlink(address->sun_path);
    close_fd(&fd);
}

static int listen_at(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    errno = ENAMETOOLONG;
    if (strlen(path) >= sizeof address.sun_path) return complain("cannot listen on", path);
    memcpy(address.sun_path, path, strlen(path));
    if (check_folder(path)) return -1;
    remove_stale(&address);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    mode_t before = umask(0177);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, BACKLOG)) {
        complain("cannot listen on", path);
        close_fd(&fd);
    }
    umask(before);
    return fd;
}

/* What we open must never get the number of a standard stream. */
static bool fill_stdio(void) {
    int fd;
    while ((fd = open("/dev/null", O_RDWR)) >= 0 && fd <= 2) continue;
    if (fd > 2) close(fd);
    return fd > 2;
}

/* PID 1 shares its cgroup's processor time with a fork bomb. As one among hundreds of equals it would need seconds
   to find and kill them, so it gets a higher priority than what it starts: it raises its own where that is allowed,
   and lowers theirs otherwise. Other sandboxes do not notice, because shares go by cgroup. Returns the nice value of
   what is started. */
static int stand_above(bool is_init) {
    int own = getpriority(PRIO_PROCESS, 0);
    bool raised = setpriority(PRIO_PROCESS, 0, own - NICE_DISTANCE) == 0;
    return raised || !is_init ? own : own + NICE_DISTANCE;
}

/* This comes before anybody can see that we are there: a signal must find us ready. */
static void hold_signals(sigset_t *waited) {
    signals_reset();
    sigemptyset(waited);
    sigaddset(waited, SIGCHLD);
    sigaddset(waited, SIGTERM);
    sigaddset(waited, SIGINT);
    signal(SIGPIPE, SIG_IGN);
    sigprocmask(SIG_BLOCK, waited, NULL);
}

static bool set_up(struct supervisor *s, const sigset_t *waited) {
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    /* What we start stays in our session, so it must have no terminal. The call fails when we lead a session
       already. */
    setsid();
    getrlimit(RLIMIT_NOFILE, &s->files);
    /* Each process takes up to five descriptors of ours. What we start gets the limit that we found. */
    setrlimit(RLIMIT_NOFILE, &(struct rlimit){s->files.rlim_max, s->files.rlim_max});
    limits_note(s);
    s->signals = signalfd(-1, waited, SFD_CLOEXEC | SFD_NONBLOCK);
    s->epoll = epoll_create1(EPOLL_CLOEXEC);
    s->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
    return tree_open(&s->scan) && s->signals >= 0 && s->epoll >= 0 &&
           watch_add(s, s->signals, WATCH_SIGNALS, 0, EPOLLIN) && watch_add(s, s->listener, WATCH_LISTENER, 0, EPOLLIN);
}

int init_run(const struct init_options *options) {
    const char *path = options->path;
    static struct supervisor s;
    sigset_t waited;
    if (!fill_stdio()) return complain("cannot open", "/dev/null"), 1;
    hold_signals(&waited);
    s.listener = listen_at(path);
    if (s.listener < 0) return 1;
    report_prepare(&s, path);
    s.socket = path;
    s.self = getpid();
    s.is_init = s.self == 1;
    s.changes_user = user_can_change();
    s.nice = stand_above(s.is_init);
    s.started = clock_now();
    s.leave_by = NEVER;
    s.claim_ms = options->claim_ms;
    s.group = options->group;
    s.owns_ipc = options->owns_ipc && s.is_init;
    for (int i = 0; i < CONNS_MAX; i++) s.conns[i].fd = -1;
    tunnels_prepare(&s, memory_limit());
    uint64_t share = memory_limit() / SPOOL_SHARE;
    spool_set_budget((size_t)(share < SPOOL_MAX ? share : SPOOL_MAX));
    if (!set_up(&s, &waited)) return complain("cannot watch", path), 1;
    int code = loop_run(&s);
    unlink(path);
    bool again = options->stays && s.asked && !s.everything_survivors;
    return again ? INIT_AGAIN : s.asked && options->stays ? 1 : code;
}
