#include "init/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/fsuid.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <termios.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/fd.h"
#include "base/request.h"
#include "init/answer.h"
#include "init/cgroup.h"
#include "init/limits.h"
#include "init/report.h"
#include "init/table.h"
#include "init/watch.h"
#include "start/child.h"
#include "start/hide.h"
#include "start/leader.h"
#include "start/user.h"

static const mode_t OWN_MASK = 022, SHARED_MASK = 002;
enum { PIPE_SIZE = 256 << 10 }; /* bytes: a process that prints much needs fewer turns; the kernel may refuse */

/* A process that is being made; `l` has the child's ends of everything. */
struct making {
    struct process *p;
    struct launch l;
    int reports; /* the leader's end */
    int stage, error;
};

static bool fail(struct making *m, int stage) {
    m->stage = stage;
    m->error = errno;
    return false;
}

/* Makes a pipe; `ours` is 0 when we keep the reading end. */
static bool make_pipe(int *keep, int *give, int ours) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC)) return false;
    *keep = ends[ours];
    *give = ends[!ours];
    fcntl(*keep, F_SETPIPE_SZ, PIPE_SIZE);
    return fcntl(*keep, F_SETFL, O_NONBLOCK) == 0;
}

static bool make_pipes(struct making *m) {
    struct process *p = m->p;
    if (!make_pipe(&p->streams[0].fd, &m->l.out, 0)) return false;
    if (p->flags & SPAWN_MERGE) m->l.err = m->l.out;
    else if (!make_pipe(&p->streams[1].fd, &m->l.err, 0)) return false;
    return !(p->flags & SPAWN_STDIN) || make_pipe(&p->input.fd, &m->l.in, 1);
}

static bool make_terminal(struct making *m, const struct spawn *q) {
    struct process *p = m->p;
    int master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK), slave;
    p->streams[0].fd = master;
    int unlock = 0;
    if (master < 0 || ioctl(master, TIOCSPTLCK, &unlock)) return false;
    /* The slave is opened by the master and not by its path: /dev/pts may belong to another instance. */
    slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (slave < 0) return false;
    /* We keep it open until main ends. Otherwise the master would report EIO whenever main has closed it for a
       moment. */
    m->l.in = m->l.out = m->l.err = p->slave_fd = slave;
    struct winsize size = {.ws_row = q->rows, .ws_col = q->cols};
    struct termios t;
    ioctl(slave, TIOCSWINSZ, &size);
    if (tcgetattr(slave, &t) == 0) {
        t.c_iflag |= IUTF8;
        tcsetattr(slave, TCSANOW, &t);
    }
    p->input.fd = fcntl(master, F_DUPFD_CLOEXEC, 3);
    return p->input.fd >= 0;
}

/* The files belong to the process's user, who may open them again by /dev/stdout or by the terminal's name. */
static bool make_files(struct making *m, const struct spawn *q) {
    const struct identity *who = &m->l.who;
    if (who->change) {
        setfsgid(who->gid);
        setfsuid(who->uid);
    }
    bool pty = m->p->flags & SPAWN_PTY;
    bool made = pty ? make_terminal(m, q) : make_pipes(m);
    if (!made) fail(m, pty ? STAGE_PTY : STAGE_FORK);
    if (who->change) {
        setfsuid(geteuid());
        setfsgid(getegid());
        /* The kernel may have made us dumpable for that change, and then does the same to a child that becomes the
           user. */
        m->l.exposed = prctl(PR_GET_DUMPABLE) == 1;
        prctl(PR_SET_DUMPABLE, 0);
    }
    if (!made) return false;
    return true;
}

/* Without one the command runs all the same: that nothing was told is seen at its end. */
static void make_report(struct supervisor *s, struct process *p, const struct spawn *q) {
    if (p->flags & SPAWN_REPORT && !report_open(s, p, q->prologue)) report_close(s, p);
}

static bool copy_words(struct making *m, const struct spawn *q) {
    struct launch *l = &m->l;
    l->argv = strings_copy(&q->argv);
    l->env = strings_copy(&q->env);
    if (l->argv) {
        l->program = l->argv[0];
        char *slash = strrchr(l->argv[0], '/');
        if (slash && m->p->flags & SPAWN_SHORT_NAME) l->argv[0] = slash + 1;
    }
    bool hides = m->p->flags & SPAWN_HIDE && l->argv && l->env;
    if (hides) l->hidden = hide_words(l->argv, l->env);
    l->cwd = slice_copy(q->cwd);
    l->user = slice_copy(q->user);
    if (!l->argv || !l->env || (hides && !l->hidden) || !l->cwd || !l->user) {
        errno = ENOMEM;
        return fail(m, STAGE_FORK);
    }
    return true;
}

static bool start_leader(struct supervisor *s, struct making *m) {
    if (!make_pipe(&m->p->reports_fd, &m->reports, 0)) return fail(m, STAGE_FORK);
    pid_t supervisor = getpid(), pid = fork();
    if (pid < 0) return fail(m, STAGE_FORK);
    if (pid == 0) {
        explicit_bzero(s->token, sizeof s->token);
        explicit_bzero(s->sudo.password, sizeof s->sudo.password);
        leader_run(&m->l, m->reports, supervisor);
    }
    m->p->leader = pid;
    return true;
}

static void watch_all(struct supervisor *s, struct process *p) {
    watch_add(s, p->reports_fd, WATCH_REPORTS, p->number, EPOLLIN);
    for (int i = 0; i < STREAMS; i++)
        if (p->streams[i].fd >= 0) watch_add(s, p->streams[i].fd, i ? WATCH_ERR : WATCH_OUT, p->number, EPOLLIN);
    /* Without wanted events, epoll still reports that the reader has closed its end. */
    if (p->input.fd >= 0) watch_add(s, p->input.fd, WATCH_IN, p->number, 0);
}

static void free_launch(struct making *m) {
    struct launch *l = &m->l;
    if (l->err != l->out) close_fd(&l->err);
    if (l->out != m->p->slave_fd) {
        close_fd(&l->out);
        close_fd(&l->in);
    }
    close_fd(&m->reports);
    free(l->hidden);
    free(l->argv);
    free(l->env);
    free(l->cwd);
    free(l->user);
}

/* A name that the image chose may mean root, whose processes could attack us, or bring root's group. */
static const char *find_root(const struct identity *who) {
    if (who->uid == 0) return "commands may not run as root";
    for (size_t i = 0; i < who->group_count; i++)
        if (who->groups[i] == 0) return "the image gives it root's group; name another one, as in 'uid:gid'";
    return NULL;
}

/* Users that share the task's files by a group must be able to write what another one has made. */
static void join_group(const struct supervisor *s, struct launch *l) {
    struct identity *who = &l->who;
    bool joins = s->group && who->change && who->group_count < GROUPS_MAX;
    if (joins) who->groups[who->group_count++] = s->group;
    l->mask = joins ? SHARED_MASK : OWN_MASK;
}

static bool resolve_user(struct supervisor *s, uint32_t number, struct making *m) {
    const char *fault = user_resolve(m->l.user, &m->l.who);
    if (!fault && s->is_init && m->l.who.change) fault = find_root(&m->l.who);
    join_group(s, &m->l);
    if (!fault) return true;
    char text[FAULT_TEXT];
    snprintf(text, sizeof text, "cannot become the user '%.100s': %s", m->l.user, fault);
    answer_failed(s, number, STAGE_USER, user_can_change() ? EINVAL : EPERM, text);
    m->stage = 0;
    return false;
}

static const char *find_fault(struct supervisor *s, const struct spawn *q) {
    limits_restore(s);
    if (*s->fault) return s->fault;
    if (table_running(s) >= PROCESSES_MAX) return "too many processes are running in this sandbox";
    if (s->leaving || s->everything.phase != KILL_IDLE) return "everything in this sandbox is being killed";
    return spawn_fault(q);
}

void spawn(struct supervisor *s, uint32_t number, const struct spawn *q) {
    const char *fault = find_fault(s, q);
    struct making m = {.l = {.in = -1, .out = -1, .err = -1, .files = s->files}, .reports = -1};
    if (!fault && !(m.p = table_add(s, number, q))) fault = "there is no memory left for a process";
    if (fault) {
        answer_failed(s, number, STAGE_REQUEST, EINVAL, fault);
        return;
    }
    m.p->oom_before = oom_kills();
    m.p->refused_before = refused_forks();
    m.l.pty = m.p->flags & SPAWN_PTY;
    m.l.nice = s->nice;
    m.l.capabilities = s->sudo.capabilities;
    make_report(s, m.p, q);
    bool started = copy_words(&m, q) && resolve_user(s, number, &m) && make_files(&m, q) && start_leader(s, &m);
    if (!started && m.stage) {
        char text[FAULT_TEXT];
        launch_fault(&m.l, m.stage, m.error, text, sizeof text);
        answer_failed(s, number, m.stage, m.error, text);
    }
    if (started) watch_all(s, m.p);
    free_launch(&m);
    if (!started) table_remove(s, m.p);
}
