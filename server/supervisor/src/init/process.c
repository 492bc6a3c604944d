#include "init/process.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/fd.h"
#include "init/answer.h"
#include "init/cgroup.h"
#include "init/descendants.h"
#include "init/input.h"
#include "init/ipc.h"
#include "init/limits.h"
#include "init/report.h"
#include "init/stream.h"
#include "init/table.h"
#include "start/leader.h"

static uint8_t reason_of(const struct supervisor *s, const struct process *p) {
    if (p->kill.phase != KILL_IDLE && !p->kill.quiet) return p->kill.reason;
    return s->everything.phase != KILL_IDLE ? s->everything.reason : REASON_ITSELF;
}

/* For a server that comes later, and what is too long for the EXIT. One without a tag is the server's own. */
static void keep_report(struct supervisor *s, struct process *p) {
    bool counts = p->flags & SPAWN_REPORT && p->reason == REASON_ITSELF && WIFEXITED(p->status) && *p->tag;
    bool is_long = p->report.size > REPORT_PIECE;
    char *tag = counts && p->report.size ? strdup(p->tag) : NULL;
    if (tag) {
        free(s->state_tag);
        buffer_free(&s->state);
        s->state_tag = tag;
        if (is_long) s->state = p->report;
        else put_bytes(&s->state, p->report.data, p->report.size);
        p->report_size = p->report.size;
        if (is_long) p->report = (struct buffer){0};
    } else if (is_long) {
        buffer_free(&p->report);
    } else {
        p->report_size = p->report.size;
    }
}

/* When nothing runs that could still want it. A server that knows of a command's end must find the memory free. */
static void free_memory(const struct supervisor *s, size_t running) {
    if (s->owns_ipc && table_running(s) == running) ipc_free_unattached();
}

void process_ended(struct supervisor *s, struct process *p, int status, uint32_t descendants) {
    if (p->state >= STATE_EXITED) return;
    /* The command that changed them has ended: the next one must not inherit them. */
    limits_restore(s);
    stream_drain(p);
    for (int i = 0; i < STREAMS; i++) p->exit_totals[i] = stream_total(p, i);
    p->state = STATE_EXITED;
    p->status = status;
    p->reason = reason_of(s, p);
    p->descendants = descendants;
    if (!p->ended) p->ended = clock_now();
    p->oom_kills = oom_kills() - p->oom_before;
    p->refused_forks = refused_forks() - p->refused_before;
    p->timeout = NEVER;
    if (!descendants) free_memory(s, 1);
    report_close(s, p);
    keep_report(s, p);
    close_fd(&p->slave_fd);
    input_close(p);
    if (s->active) p->owed |= OWED_EXIT;
}

void process_gone(struct supervisor *s, struct process *p) {
    if (p->state == STATE_GONE) return;
    stream_drain(p);
    /* What is held back is read to its end, when there is room. */
    for (int i = 0; i < STREAMS && !(p->flags & SPAWN_HOLD); i++) close_fd(&p->streams[i].fd);
    close_fd(&p->reports_fd);
    p->state = STATE_GONE;
    p->leader = 0;
    p->gone = clock_now();
    if (s->active) p->owed |= OWED_GONE;
    else p->owed = 0;
    free_memory(s, 0);
}

static void take_usage(struct process *p, const struct leader_report *r) {
    p->ended = r->when;
    p->user_us = r->user_us;
    p->system_us = r->system_us;
    p->max_rss_kb = r->max_rss_kb;
}

void process_reap(struct supervisor *s) {
    int status;
    struct rusage usage;
    pid_t pid;
    while ((pid = wait4(-1, &status, WNOHANG, &usage)) > 0) {
        /* A main process becomes ours to reap when its leader has been killed. */
        struct process *p = s->processes;
        while (p && (p->main != pid || p->state != STATE_RUNNING)) p = p->next;
        if (!p) continue;
        struct leader_report r;
        report_usage(&r, &usage);
        take_usage(p, &r);
        process_ended(s, p, status, descendants_count(s, p));
    }
}

static void started(struct supervisor *s, struct process *p, pid_t pid, int64_t when) {
    p->state = STATE_RUNNING;
    p->main = pid;
    p->started = when;
    answer_spawned(s, p);
}

/* The leader died without reporting its end. */
static void lost(struct supervisor *s, struct process *p) {
    close_fd(&p->reports_fd);
    p->leader = 0;
    if (p->state == STATE_STARTING) started(s, p, 0, clock_now());
}

/* Returns false when the process has been removed. */
static bool take_report(struct supervisor *s, struct process *p, const struct leader_report *r) {
    switch (r->kind) {
    case LEADER_STARTED: started(s, p, r->pid, r->when); return true;
    case LEADER_FAILED:
        answer_failed(s, p->number, r->stage, r->error, r->text);
        table_remove(s, p);
        return false;
    case LEADER_ENDED:
        take_usage(p, r);
        process_ended(s, p, r->status, r->has_children ? descendants_count(s, p) : 0);
        return true;
    default: p->leader_done = true; return true;
    }
}

enum fate process_report(struct supervisor *s, struct process *p) {
    struct leader_report r;
    ssize_t size;
    while (p->reports_fd >= 0 && (size = read(p->reports_fd, &r, sizeof r)) != 0) {
        if (size != sizeof r) return FATE_OPEN;
        if (!take_report(s, p, &r)) return FATE_OPEN;
    }
    if (p->reports_fd < 0) return FATE_OPEN;
    if (!p->leader_done) {
        lost(s, p);
        return FATE_LOST;
    }
    process_gone(s, p);
    return FATE_GONE;
}
