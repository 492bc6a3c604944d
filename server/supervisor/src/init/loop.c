#include "init/loop.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/time.h>
#include <unistd.h>

#include "init/answer.h"
#include "init/conn.h"
#include "init/dispatch.h"
#include "init/input.h"
#include "init/kill.h"
#include "init/process.h"
#include "init/relay.h"
#include "init/report.h"
#include "init/stream.h"
#include "init/supervisor.h"
#include "init/table.h"
#include "init/tunnel.h"
#include "init/watch.h"
#include "sudo/password.h"

enum {
    EVENTS_MAX = 64,
    TERM_GRACE_MS = 2000,  /* the protocol's grace at SIGTERM and when no server is left */
    FAREWELL_MS = 500,     /* for the last frames to reach a server that reads */
    HOLD_MAX = 16 << 10,   /* bytes: more is worth a write of its own */
};

/* us; SPAWNED, OUTPUT and EXIT of a short command go out together, because each write wakes four programs on the way
   to the server. Nobody waits for the first two alone, and a person does not see five milliseconds. */
static const int64_t HOLD = 5000;

/* How long a system call of one turn may block: much longer than any that does not block takes. */
static const struct timeval PATIENCE = {.tv_usec = 5000};

static void take_signal(struct supervisor *s) {
    struct signalfd_siginfo info;
    while (read(s->signals, &info, sizeof info) == sizeof info) {
        if (info.ssi_signo == SIGCHLD) process_reap(s);
        /* As PID 1 we see the pid of senders inside our container, and 0 for others: what we run must not end its
           sandbox. */
        else if (!s->is_init || info.ssi_pid == 0) kill_and_leave(s, TERM_GRACE_MS);
    }
}

static void take_reports(struct supervisor *s, struct process *p) {
    enum fate fate = process_report(s, p);
    if (fate == FATE_GONE) kill_settle(s, p);
    if (fate == FATE_LOST) kill_begin(s, p, REASON_ITSELF, 0, true);
}

static void take_process_event(struct supervisor *s, enum watch kind, uint32_t number, uint32_t events) {
    /* An earlier event can have removed the process. */
    struct process *p = table_find(s, number);
    if (!p) return;
    if (kind == WATCH_REPORTS) take_reports(s, p);
    else if (kind == WATCH_OUT) stream_read(s, p, 0);
    else if (kind == WATCH_ERR) stream_read(s, p, 1);
    else if (kind == WATCH_STATE) report_read(p);
    else if (events & (EPOLLERR | EPOLLHUP)) input_close(p);
    else input_flush(s, p);
}

static void take_question(struct supervisor *s) {
    if (password_asked(&s->sudo) && s->active) answer_sudo(s, SUDO_REFUSED);
}

static void take_event(struct supervisor *s, const struct epoll_event *e) {
    enum watch kind = (enum watch)(e->data.u64 >> 32);
    uint32_t number = (uint32_t)e->data.u64;
    if (kind == WATCH_LISTENER) conn_accept(s);
    else if (kind == WATCH_SIGNALS) take_signal(s);
    else if (kind == WATCH_CONN) dispatch_event(s, &s->conns[number], e->events);
    else if (kind == WATCH_ASKPASS) take_question(s);
    else if (kind == WATCH_TUNNELS) s->tunnels.waiting[number] = true;
    else if (kind == WATCH_TUNNEL) tunnel_event(s, &s->tunnels.all[number], e->events);
    else take_process_event(s, kind, number, e->events);
}

/* A connection whose other end is gone can stay open for hours, so only bytes count as the presence of a server. */
static int64_t orphan_deadline(const struct supervisor *s) {
    if (s->leaving) return NEVER;
    if (!s->token_size) return clock_after(s->started, s->claim_ms);
    return s->orphan_ttl_ms ? clock_after(s->last_seen, s->orphan_ttl_ms) : NEVER;
}

static int64_t next_timeout(const struct supervisor *s) {
    int64_t next = NEVER;
    for (const struct process *p = s->processes; p; p = p->next)
        if (p->timeout < next) next = p->timeout;
    return next;
}

static void run_timers(struct supervisor *s, int64_t now) {
    for (struct process *p = s->processes; p; p = p->next) {
        if (now < p->timeout) continue;
        p->timeout = NEVER;
        kill_begin(s, p, REASON_TIMEOUT, p->grace_ms, false);
    }
    kill_run(s, now);
    conn_expire(s, now);
    if (now >= orphan_deadline(s)) kill_and_leave(s, TERM_GRACE_MS);
}

static int wait_ms(const struct supervisor *s) {
    int64_t now = clock_now(), at = kill_next(s);
    int64_t others[] = {next_timeout(s), conn_next(s), orphan_deadline(s), s->leave_by};
    for (int i = 0; i < 4; i++)
        if (others[i] < at) at = others[i];
    if (at == NEVER) return -1;
    if (at <= now) return 0;
    int64_t ms = (at - now + MS - 1) / MS;
    return ms > 60000 ? 60000 : (int)ms; /* so that it fits an int; waking up once a minute costs nothing */
}

/* Returns whether the frames in the buffer may wait for others. */
static bool holds_back(struct conn *c) {
    if (c->urgent || c->wants_write || !conn_waiting(c) || conn_waiting(c) > HOLD_MAX) return false;
    int64_t now = clock_now();
    if (!c->held) c->held = now + HOLD;
    return now < c->held;
}

/* Produces the answers that are owed and sends them, as far as the socket takes them. */
static void serve_answers(struct supervisor *s) {
    struct conn *c = s->active;
    if (!c) return;
    bool more = answer_pump(s);
    stream_resume(s);
    more |= relay_pump(s);
    answer_acknowledge(s);
    if (!more && !c->out.failed && !s->leaving && holds_back(c)) return;
    c->held = 0;
    c->urgent = false;
    if (c->out.failed || conn_overflows(c)) {
        conn_close(s, c);
        return;
    }
    if (!conn_flush(c)) conn_lose(s, c);
    if (c->fd < 0) return;
    /* With a full session, what comes next is the server's acknowledgement. */
    bool wants_write = conn_waiting(c) || (more && !conn_full(c));
    if (wants_write == c->wants_write) return;
    c->wants_write = wants_write;
    watch_change(s, c->fd, WATCH_CONN, conn_index(s, c), wants_write ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

static void say_farewell(struct supervisor *s) {
    int64_t end = clock_now() + FAREWELL_MS * MS;
    serve_answers(s);
    while (s->active && s->active->fd >= 0 && conn_waiting(s->active) && clock_now() < end) {
        struct pollfd ready = {.fd = s->active->fd, .events = POLLOUT};
        poll(&ready, 1, FAREWELL_MS);
        serve_answers(s);
    }
}

static void take_alarm(int number) { (void)number; }

/* With sudo, processes of the sandbox can send us descriptors. Who closes a file last waits for it: closing a
   connection that lingers takes as long as its owner wished. An alarm ends such a wait, again and again during the
   turn. */
static void bound_waits(const struct supervisor *s, bool on) {
    struct itimerval timer = {{0}, {0}};
    if (on) timer.it_interval = timer.it_value = PATIENCE;
    if (s->sudo.ready) setitimer(ITIMER_REAL, &timer, NULL);
}

/* Returns whether a kill is under way that somebody waits for. */
static bool is_killing(const struct supervisor *s) {
    for (const struct process *p = s->processes; p; p = p->next)
        if (p->kill.phase != KILL_IDLE && !p->kill.quiet) return true;
    return s->everything.phase != KILL_IDLE;
}

/* Ends a supervisor that can serve no longer. Its ERROR goes out in one write with what is owed: a server that has got
   the end of a command then knows that the sandbox ends too, before it sends the next command. */
static void leave_at_fault(struct supervisor *s, int64_t now) {
    if (s->leaving || !*s->fault) return;
    if (is_killing(s)) s->leave_by = NEVER;
    else if (s->leave_by == NEVER) s->leave_by = now + FAREWELL_MS * MS;
    if (s->leave_by == NEVER) return;
    struct conn *c = s->active;
    if (c && (answer_pump(s) || conn_waiting(c) > HOLD_MAX) && now < s->leave_by) return;
    if (c) conn_refuse(s, c, s->fault);
    s->leave_by = NEVER;
    kill_and_leave(s, 0);
}

int loop_run(struct supervisor *s) {
    struct epoll_event events[EVENTS_MAX];
    sigaction(SIGALRM, &(struct sigaction){.sa_handler = take_alarm, .sa_flags = SA_RESTART}, NULL);
    while (!s->leaving || s->everything.phase != KILL_IDLE) {
        int count = epoll_wait(s->epoll, events, EVENTS_MAX, wait_ms(s));
        if (count < 0 && errno != EINTR) return 1;
        bound_waits(s, true);
        for (int i = 0; i < count; i++) take_event(s, &events[i]);
        run_timers(s, clock_now());
        leave_at_fault(s, clock_now());
        serve_answers(s);
        table_sweep(s);
        bound_waits(s, false);
    }
    say_farewell(s);
    return 0;
}
