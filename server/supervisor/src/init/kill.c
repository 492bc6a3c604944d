#include "init/kill.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/tree.h"
#include "init/descendants.h"
#include "init/process.h"

/* STOP goes on until a scan finds nothing new, or for so long: then KILL must do without it. */
static const int64_t STOP_LIMIT = 200000;
/* After KILL, who is alive after so long sleeps in the kernel, and counts as a survivor. */
static const int64_t KILL_LIMIT = 1500000;
/* But hundreds of killed processes need processor time to end: while they get fewer there is more time, up to this. */
static const int64_t KILL_MORE = 500000, KILL_LIMIT_LAST = 5000000;
/* Between two looks after KILL: time for the killed to run to their end. */
static const int64_t KILL_ROUND = 10000;
/* Between two looks when survivors have been told already. */
static const int64_t LATE_ROUND = 100000;
/* Between two looks during the grace: soon enough for what was forked behind the first look's back. */
static const int64_t TERM_ROUND = 20000;

/* Whom a round hits with what. */
struct hitting {
    const struct supervisor *s;
    const struct process *p;
    int number;
    pid_t last_group;
};

/* Whether an entry's group was founded in its own tree: it may as well have joined a leader's, or another tree's. */
static bool is_own_group(const struct supervisor *s, const struct entry *e) {
    const struct entry *founder = tree_find(&s->scan, e->group);
    if (founder) return founder->owner == e->owner;
    for (const struct process *p = s->processes; p; p = p->next)
        if (p->main == e->group && e->owner == (p->leader ? p->leader : OWNER_ORPHAN)) return true;
    return false;
}

/* A group is hit in one call, which no fork inside it can outrun. */
static void hit(const struct entry *e, void *context) {
    struct hitting *h = context;
    if (!descends_from(h->p, e) || entry_dead(e) || (h->number == SIGSTOP && entry_stopped(e))) return;
    if (e->group > 1 && e->group != h->last_group && is_own_group(h->s, e)) kill(-e->group, h->number);
    h->last_group = e->group;
    kill(e->pid, h->number);
}

/* A leader that root of the sandbox has stopped would reap and tell nothing. */
static void wake_leaders(const struct supervisor *s, const struct process *only) {
    for (const struct process *p = only ? only : s->processes; p; p = only ? NULL : p->next)
        if (p->leader) kill(p->leader, SIGCONT);
}

/* Hit everybody, first as they are seen, then those whose place in the tree showed only at the end. */
static bool hit_all(struct supervisor *s, const struct process *p, int number) {
    struct hitting h = {.s = s, .p = p, .number = number};
    if (!descendants_look(s, hit, &h)) return false;
    for (size_t i = 0; i < s->scan.count; i++) hit(&s->scan.entries[i], &h);
    return true;
}

static struct kill *kill_of(struct supervisor *s, struct process *p) { return p ? &p->kill : &s->everything; }

static int pid_order(const void *a, const void *b) {
    pid_t x = *(const pid_t *)a, y = *(const pid_t *)b;
    return (x > y) - (x < y);
}

static bool is_new(const struct kill *k, pid_t pid) {
    return !k->seen_count || !bsearch(&pid, k->seen, k->seen_count, sizeof pid, pid_order);
}

/* Remember who is there now; true when this look showed nobody that the one before had not. */
static bool remember(struct supervisor *s, struct process *p, struct kill *k) {
    pid_t *seen = malloc((s->scan.count + 1) * sizeof *seen);
    if (!seen) return true;
    size_t count = 0;
    bool settled = !s->scan.torn;
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

/* Nobody is left of a tree whose leader was killed: only a look can tell that. Who was seen dead is reaped first: GONE
   says that nothing is left, not even a zombie. */
static void bury(struct supervisor *s) {
    process_reap(s);
    if (s->scan.torn) return;
    for (struct process *p = s->processes, *next; p; p = next) {
        next = p->next;
        if (p->leader || p->state == STATE_GONE || descendants_alive(s, p)) continue;
        if (p->state != STATE_EXITED) process_ended(s, p, SIGKILL, 0);
        process_gone(s, p);
        kill_settle(s, p);
    }
}

/* TERM to all, once. Later rounds take only those whose parent died before we saw them: what a program starts
   to clean up after itself must be let alone. */
static void term_round(struct supervisor *s, struct process *p, struct kill *k, bool first) {
    if (!descendants_look(s, NULL, NULL)) return;
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

/* Stop whatever runs; true when nothing new has appeared. */
static bool stop_round(struct supervisor *s, struct process *p, struct kill *k) {
    return !hit_all(s, p, SIGSTOP) || remember(s, p, k);
}

static void enter(struct kill *k, enum kill_phase phase, int64_t deadline) {
    k->phase = phase;
    k->deadline = deadline;
    k->tick = 0;
    k->seen_count = 0; /* nobody has been seen in this phase */
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
    /* Also for a server that comes later: LISTING tells it. */
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

/* True when nothing is left to kill: the end has been told then. */
static bool is_over(struct supervisor *s, struct process *p) {
    struct kill *k = kill_of(s, p);
    if (!p && all_gone(s) && !s->scan.torn && descendants_alive(s, NULL) == 0) end(s, NULL, 0);
    return k->phase == KILL_IDLE;
}

/* Time is up: whoever is still there survives. The kill goes on unheard: the kernel may let go of them later. */
static void give_up(struct supervisor *s, struct process *p) {
    uint32_t survivors = descendants_alive(s, p);
    /* A main process can be dead and yet not reaped: a tracer that is not ours holds its zombie. */
    for (struct process *q = p ? p : s->processes; q && !survivors; q = p ? NULL : q->next)
        if (q->state == STATE_RUNNING) process_ended(s, q, SIGKILL, 0);
    end(s, p, survivors);
    if (p) p->kill = (struct kill){.phase = KILL_KILL, .reason = p->kill.reason, .quiet = true, .deadline = NEVER};
}

/* The killed are getting fewer: they shall have the time for it. */
static bool is_moving(struct supervisor *s, struct process *p, struct kill *k, int64_t now) {
    uint32_t alive = descendants_alive(s, p);
    bool fewer = alive && alive < k->alive && now < k->last;
    k->alive = alive;
    if (fewer) k->deadline = now + KILL_MORE;
    return fewer;
}

/* The first moment of the KILL phase. */
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
        hit_all(s, p, SIGKILL);
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
