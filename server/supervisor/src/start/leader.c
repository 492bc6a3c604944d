#include "start/leader.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/protocol.h"
#include "base/tree.h"
#include "start/hide.h"

/* us that a leader whose supervisor died goes on killing its tree: as long as the supervisor itself would. */
static const int64_t ABANDON_LIMIT = 1500000;
/* us that the report of a start waits for others: a short command is over by then. */
static const int64_t HOLD = 2000;
enum {
    ABANDON_ROUND_US = 5000, /* time for the killed to be reaped before the next scan */
    REPORTS_MAX = 3,
};

void report_usage(struct leader_report *r, const struct rusage *usage) {
    r->when = clock_now();
    r->user_us = (int64_t)usage->ru_utime.tv_sec * SECOND + usage->ru_utime.tv_usec;
    r->system_us = (int64_t)usage->ru_stime.tv_sec * SECOND + usage->ru_stime.tv_usec;
    r->max_rss_kb = usage->ru_maxrss;
}

/* Reports go out together and as late as possible: each write wakes the supervisor, often on the processor that the
   command runs on. A command that is over in an instant has three: started, ended, done. */
static struct {
    struct leader_report all[REPORTS_MAX];
    size_t count;
} outbox;

static void flush(int reports) {
    if (outbox.count) (void)!write(reports, outbox.all, outbox.count * sizeof *outbox.all);
    outbox.count = 0;
}

static void tell(int reports, const struct leader_report *r) {
    if (outbox.count == REPORTS_MAX) flush(reports);
    outbox.all[outbox.count++] = *r;
}

static bool no_child_left(void) {
    siginfo_t info;
    return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0 && errno == ECHILD;
}

static void tell_end(int reports, int status, const struct rusage *usage) {
    struct leader_report r = {.kind = LEADER_ENDED, .status = status, .has_children = !no_child_left()};
    report_usage(&r, usage);
    tell(reports, &r);
}

/* Reaps what has ended; returns false when no child is left at all. */
static bool reap(int reports, pid_t main_pid) {
    for (;;) {
        int status;
        struct rusage usage;
        pid_t pid = wait4(-1, &status, WNOHANG, &usage);
        if (pid == 0) return true;
        if (pid < 0) return errno != ECHILD;
        if (pid == main_pid) tell_end(reports, status, &usage);
    }
}

/* The supervisor is dead (a local engine's, by SIGKILL), and nobody else would ever end our tree. */
static void abandon(int reports, pid_t main_pid) {
    struct scan scan;
    tree_open(&scan);
    int64_t end = clock_now() + ABANDON_LIMIT;
    while (reap(reports, main_pid) && clock_now() < end) {
        tree_scan(&scan, &(struct family){.self = getpid()}, NULL, NULL);
        for (size_t i = 0; i < scan.count; i++)
            if (scan.entries[i].owner != OWNER_NONE) kill(scan.entries[i].pid, SIGKILL);
        usleep(ABANDON_ROUND_US);
    }
}

/* Waits for a signal. A report of the start is held back until `held` and no longer, because other children may end
   without a pause; the server waits for every other report. */
static int wait_signal(int reports, const sigset_t *waited, int64_t held) {
    int64_t left = held - clock_now();
    bool may_wait = left > 0 && outbox.count && outbox.all[outbox.count - 1].kind == LEADER_STARTED;
    int number = may_wait ? sigtimedwait(waited, NULL, &(struct timespec){.tv_nsec = left * 1000}) : -1;
    if (number >= 0) return number;
    flush(reports);
    return sigwaitinfo(waited, NULL);
}

static void lead(int reports, pid_t main_pid, pid_t supervisor, const sigset_t *waited) {
    int64_t held = clock_now() + HOLD;
    while (reap(reports, main_pid)) {
        /* Both signals are blocked, so none is lost between reaping and waiting. */
        int number = wait_signal(reports, waited, held);
        if (number == SIGTERM && getppid() != supervisor) {
            abandon(reports, main_pid);
            return;
        }
    }
}

static void tell_failure(const struct launch *l, int reports, int stage, int error) {
    struct leader_report r = {.kind = LEADER_FAILED, .stage = stage, .error = error};
    launch_fault(l, stage, error, r.text, sizeof r.text);
    tell(reports, &r);
}

static ssize_t read_fault(int errors, struct fault *fault) {
    ssize_t size;
    while ((size = read(errors, fault, sizeof *fault)) < 0 && errno == EINTR) continue;
    return size;
}

/* What came of starting a child: 0, or a fault. `seen`: it does not hide its last argument. */
static struct fault wait_started(int errors, bool *seen) {
    struct fault fault;
    while (read_fault(errors, &fault) == sizeof fault) {
        if (fault.stage != STAGE_SEEN) return fault;
        *seen = true;
    }
    return (struct fault){0};
}

/* Start one child; its pid, or 0 with the fault. */
static pid_t start_child(const struct launch *l, struct fault *fault) {
    int errors[2];
    bool seen = false;
    *fault = (struct fault){STAGE_FORK, 0};
    if (pipe2(errors, O_CLOEXEC)) return fault->error = errno, 0;
    /* Root lends the child its memory until the exec, which spares copying it. Not where that would open a leader's
       memory to the user: as anybody but root the child makes itself dumpable, and some kernels are told to do it. */
    pid_t pid = geteuid() == 0 && !l->exposed ? vfork() : fork();
    if (pid == 0) child_run(l, errors[1]);
    /* The kernel may have made the memory dumpable when the child became somebody else. */
    prctl(PR_SET_DUMPABLE, 0);
    if (pid < 0) return fault->error = errno, 0;
    close(errors[1]);
    *fault = wait_started(errors[0], &seen);
    close(errors[0]);
    if (fault->stage) {
        waitpid(pid, NULL, 0);
        return 0;
    }
    if (!l->hidden || seen || hide_settle(pid, l->hidden)) return pid;
    struct launch plain = *l;
    plain.hidden = NULL;
    return start_child(&plain, fault);
}

/* Start main and tell how that went; its pid, or 0. */
static pid_t start(const struct launch *l, int reports) {
    struct leader_report started = {.kind = LEADER_STARTED, .when = clock_now()};
    struct fault fault;
    started.pid = start_child(l, &fault);
    close_except(&reports, 1);
    if (!started.pid) tell_failure(l, reports, fault.stage, fault.error);
    else tell(reports, &started);
    return started.pid;
}

void leader_run(const struct launch *l, int reports, pid_t supervisor) {
    sigset_t all, waited;
    /* PID 1 has reset all other signals. */
    signal(SIGPIPE, SIG_DFL);
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    sigemptyset(&waited);
    sigaddset(&waited, SIGCHLD);
    sigaddset(&waited, SIGTERM);
    /* We lead a group and not a session: the kernel makes a scheduling group for each session, which costs more than
       the fork. */
    setpgid(0, 0);
    prctl(PR_SET_DUMPABLE, 0);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    /* The kernel does not kill a child that still shares our memory, and would kill PID 1 instead. Without root the
       child does this for itself. */
    offer_to_oom();
    if (getppid() != supervisor) _exit(1);
    pid_t main_pid = start(l, reports);
    if (main_pid) lead(reports, main_pid, supervisor, &waited);
    struct leader_report done = {.kind = LEADER_DONE};
    tell(reports, &done);
    flush(reports);
    _exit(0);
}
