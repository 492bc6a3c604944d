#include "init/kill.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/tree.h"
#include "init/descendants.h"
#include "init/process.h"

/* us; STOP is repeated until a scan finds nothing new, but no longer than this. */
static const int64_t STOP_LIMIT = 200000;
/* us; a process that lives so long after KILL sleeps in the kernel, and counts as a survivor. */
static const int64_t KILL_LIMIT = 1500000;
/* us; hundreds of killed processes need processor time to end. While they get fewer they have KILL_MORE again, up to
   KILL_LIMIT_LAST in all. */
static const int64_t KILL_MORE = 500000, KILL_LIMIT_LAST = 5000000;
/* us between two scans after KILL, for the killed processes to end. */
static const int64_t KILL_ROUND = 10000;
/* us between two scans after the survivors have been reported. */
static const int64_t LATE_ROUND = 100000;
/* us between two scans during the grace: soon enough for a process that was forked behind the back of the first one. */
static const int64_t TERM_ROUND = 20000;

/* What one round sends to which tree. */
struct hitting {
    const struct supervisor *s;
    const struct process *p;
    int number;
    pid_t last_group;
};

/* Returns whether a process's group was founded in its own tree: it may as well have joined that of a leader, or of
   another tree. */
static bool is_own_group(const struct supervisor *s, const struct entry *e) {
    const struct entry *founder = tree_find(&s->scan, e->group);
    if (founder) return founder->owner == e->owner;
    for (const struct process *p = s->processes; p; p = p->next)
        if (p->main == e->group && e->owner == (p->leader ? p->leader : OWNER_ORPHAN)) return true;
    return false;
}

/* A group gets the signal in one call, which no fork inside it can outrun. */
static void hit(const struct entry *e, void *context) {
    struct hitting *h = context;
    if (!descends_from(h->p, e) || (h->number == SIGSTOP && entry_stopped(e))) return;
    /* KILL costs a zombie nothing, and does not depend on what a kernel counts as a thread. */
    if (entry_dead(e) && h->number != SIGKILL) return;
    if (e->group > 1 && e->group != h->last_group && is_own_group(h->s, e)) kill(-e->group, h->number);
    h->last_group = e->group;
    kill(e->pid, h->number);
}

/* Root of the sandbox can stop a leader, which then would neither reap nor report. */
static void wake_leaders(const struct supervisor *s, const struct process *only) {
    for (const struct process *p = only ? only : s->processes; p; p = only ? NULL : p->next)
        if (p->leader) kill(p->leader, SIGCONT);
}

/* Sends a signal to the whole tree: to most processes as they are read, and to the rest when their place in the tree
   is known at the end. */
static bool hit_all(struct supervisor *s, const struct process *p, int number) {
    struct hitting h = {.s = s, .p = p, .number = number};
    if (!descendants_look(s, hit, &h)) return false;
    for (size_t i = 0; i < s->scan.count; i++) hit(&s->scan.entries[i], &h);
    return true;
}

/* Without a scan we still know the main processes and their groups. */
static void hit_known(const struct supervisor *s, const struct process *only, int number) {
    for (const struct process *p = only ? only : s->processes; p; p = only ? NULL : p->next) {
        if (p->state != STATE_RUNNING || p->main <= 0) continue;
        kill(-p->main, number);
        kill(p->main, number);
    }
}

static struct kill *kill_of(struct supervisor *s, struct process *p) { return p ? &p->kill : &s->everything; }

static int pid_order(const void *a, const void *b) {
    pid_t x = *(const pid_t *)a, y = *(const pid_t *)b;
    return (x > y) - (x < y);
}

static bool is_new(const struct kill *k, pid_t pid) {
    return !k->seen_count || !bsearch(&pid, k->seen, k->seen_count, sizeof pid, pid_order);
}

/* Remembers which processes there are; returns true when the scan before showed all of them too. */
static bool remember(struct supervisor *s, struct process *p, struct kill *k) {
    pid_t *seen = malloc((s->scan.count + 1) * sizeof *seen);
    if (!seen) return true;
    size_t count = 0;
    bool settled = !s->scan.torn && !s->scan.failed;
    for (size_t i = 0; i < s->scan.count; i++) {
        const struct entry *e = &s->scan.entries[i];
        if (!descends_from(p, e) || entry_dead(e)) continue;
        settled = settled && !is_new(k, e->pid);
        seen[count++] = e->pid;
    }
    free(k->seen);
    k->seen = seen;
    k->seen_count = count;
    return settled;
}

/* Ends the trees whose leader was killed and of which nobody is left: only a scan can tell that. The dead are reaped
   first, because GONE says that nothing is left, not even a zombie. */
static void bury(struct supervisor *s) {
    process_reap(s);
    if (!scan_is_whole(&s->scan)) return;
    for (struct process *p = s->processes, *next; p; p = next) {
        next = p->next;
        if (p->leader || p->state == STATE_GONE || descendants_seen(s, p)) continue;
        if (p->state != STATE_EXITED) process_ended(s, p, SIGKILL, 0);
        process_gone(s, p);
        kill_settle(s, p);
    }
}

/* Sends TERM to all, once. Later rounds take only processes whose parent died before we saw them: what a program
   starts to clean up after itself is spared. */
static void term_round(struct supervisor *s, struct process *p, struct kill *k, bool first) {
    if (!descendants_look(s, NULL, NULL)) {
        if (first) hit_known(s, p, SIGTERM);
        return;
    }
    for (size_t i = 0; i < s->scan.count; i++) {
        const struct entry *e = &s->scan.entries[i];
        bool alone = e->parent == e->owner || e->parent == s->self;
        if (!descends_from(p, e) || entry_dead(e) || !(first || (alone && is_new(k, e->pid)))) continue;
        kill(e->pid, SIGTERM);
        kill(e->pid, SIGCONT);
    }
    remember(s, p, k);
    bury(s);
}

/* Stops what runs; returns true when nothing new has appeared. */
static bool stop_round(struct supervisor *s, struct process *p, struct kill *k) {
    return !hit_all(s, p, SIGSTOP) || remember(s, p, k);
}

static void enter(struct kill *k, enum kill_phase phase, int64_t deadline) {
    k->phase = phase;
    k->deadline = deadline;
    k->tick = 0;
    k->seen_count = 0; /* no process has been seen in this phase */
}

static void end(struct supervisor *s, struct process *p, uint32_t survivors) {
    struct kill *k = kill_of(s, p);
    free(k->seen);
    bool quiet = k->quiet;
    uint8_t reason = k->reason;
    *k = (struct kill){.reason = reason};
    if (!p) {
        s->everything_survivors = survivors;
        s->told_everything = true;
        return;
    }
    /* LISTING gives it to a later server too. */
    p->survivors = survivors;
    if (!quiet && s->active) p->owed |= OWED_KILLED;
}

void kill_settle(struct supervisor *s, struct process *p) {
    if (p->kill.phase != KILL_IDLE) end(s, p, 0);
}

static bool all_gone(const struct supervisor *s) {
    for (const struct process *p = s->processes; p; p = p->next)
        if (p->state != STATE_GONE) return false;
    return true;
}

/* Returns true when nothing is left to kill. */
static bool is_over(struct supervisor *s, struct process *p) {
    struct kill *k = kill_of(s, p);
    if (!p && all_gone(s) && scan_is_whole(&s->scan) && descendants_seen(s, NULL) == 0) end(s, NULL, 0);
    return k->phase == KILL_IDLE;
}

/* Time is up, and who still lives is a survivor. The kill goes on quietly: the kernel may let go of them later. */
static void give_up(struct supervisor *s, struct process *p) {
    uint32_t survivors = scan_is_whole(&s->scan) ? descendants_seen(s, p) : descendants_count(s, p);
    /* A main process can be dead and still not reaped, when a foreign tracer holds its zombie. */
    for (struct process *q = p ? p : s->processes; q && !survivors; q = p ? NULL : q->next)
        if (q->state == STATE_RUNNING) process_ended(s, q, SIGKILL, 0);
    end(s, p, survivors);
    if (p) p->kill = (struct kill){.phase = KILL_KILL, .reason = p->kill.reason, .quiet = true, .deadline = NEVER};
}

/* Returns true when the killed processes are getting fewer and get more time. */
static bool is_moving(struct supervisor *s, struct process *p, struct kill *k, int64_t now) {
    uint32_t alive = descendants_seen(s, p);
    bool fewer = alive && alive < k->alive && now < k->last;
    k->alive = alive;
    if (fewer) k->deadline = now + KILL_MORE;
    return fewer;
}

/* Enters the KILL phase. */
static void enter_kill(struct kill *k, int64_t now) {
    enter(k, KILL_KILL, now + KILL_LIMIT);
    k->last = now + KILL_LIMIT_LAST;
    k->alive = UINT32_MAX;
}

static void step(struct supervisor *s, struct process *p, int64_t now) {
    struct kill *k = kill_of(s, p);
    if (k->phase == KILL_TERM) {
        if (now >= k->deadline) enter(k, KILL_STOP, now + STOP_LIMIT);
        else term_round(s, p, k, !k->tick);
    }
    if (k->phase == KILL_STOP && (stop_round(s, p, k) || now >= k->deadline)) enter_kill(k, now);
    if (k->phase == KILL_KILL) {
        if (!hit_all(s, p, SIGKILL)) hit_known(s, p, SIGKILL);
        wake_leaders(s, p);
        bury(s);
    }
    if (is_over(s, p)) return;
    if (k->phase == KILL_KILL && now >= k->deadline && !is_moving(s, p, k, now)) {
        give_up(s, p);
        k->tick = now + LATE_ROUND;
        return;
    }
    int64_t round = k->phase == KILL_TERM ? TERM_ROUND : k->phase == KILL_STOP ? 0 : KILL_ROUND;
    if (k->deadline == NEVER) round = LATE_ROUND;
    k->tick = now + round;
    if (k->phase == KILL_TERM && k->tick > k->deadline) k->tick = k->deadline;
}

static void hurry(struct kill *k, int64_t now, int64_t deadline, bool quiet, enum reason reason) {
    if (k->quiet && !quiet) {
        k->quiet = false;
        k->reason = (uint8_t)reason;
        if (k->phase == KILL_KILL) enter_kill(k, now);
    }
    if (k->phase != KILL_TERM || deadline >= k->deadline) return;
    k->deadline = deadline;
    if (k->tick > deadline) k->tick = deadline;
}

void kill_begin(struct supervisor *s, struct process *p, enum reason reason, uint32_t grace_ms, bool quiet) {
    struct kill *k = kill_of(s, p);
    int64_t now = clock_now(), deadline = clock_after(now, grace_ms);
    if (k->phase != KILL_IDLE) {
        hurry(k, now, deadline, quiet, reason);
        return;
    }
    *k = (struct kill){.reason = (uint8_t)reason, .quiet = quiet};
    enter(k, KILL_TERM, deadline);
    step(s, p, now);
}

void kill_run(struct supervisor *s, int64_t now) {
    for (struct process *p = s->processes, *next; p; p = next) {
        next = p->next;
        if (p->kill.phase != KILL_IDLE && now >= p->kill.tick) step(s, p, now);
    }
    if (s->everything.phase != KILL_IDLE && now >= s->everything.tick) step(s, NULL, now);
}

int64_t kill_next(const struct supervisor *s) {
    int64_t next = s->everything.phase != KILL_IDLE ? s->everything.tick : NEVER;
    for (const struct process *p = s->processes; p; p = p->next)
        if (p->kill.phase != KILL_IDLE && p->kill.tick < next) next = p->kill.tick;
    return next;
}

void kill_and_leave(struct supervisor *s, uint32_t grace_ms) {
    s->leaving = true;
    kill_begin(s, NULL, REASON_KILL, grace_ms, false);
}
