#include "init/table.h"

#include <stdlib.h>

#include "base/bytes.h"
#include "base/fd.h"
#include "base/spool.h"
#include "init/report.h"
#include "init/stream.h"

enum { SPOOL_HEADROOM = 4 << 20 }; /* bytes: finished processes are forgotten early enough for running ones to print */

struct process *table_add(struct supervisor *s, uint32_t number, const struct spawn *q) {
    struct process *p = calloc(1, sizeof *p);
    char *tag = slice_copy(q->tag);
    if (!p || !tag) {
        free(p);
        free(tag);
        return NULL;
    }
    p->tag = tag;
    p->number = number;
    p->flags = q->flags & SPAWN_PTY ? q->flags | SPAWN_STDIN | SPAWN_MERGE : q->flags;
    p->reports_fd = p->slave_fd = p->state_fd = p->input.fd = -1;
    for (int i = 0; i < STREAMS; i++) {
        p->streams[i].fd = -1;
        p->streams[i].credit = q->credit;
        spool_init(&p->streams[i].spool, q->spool);
    }
    p->born = p->started = clock_now();
    p->timeout = q->timeout_ms ? clock_after(p->born, q->timeout_ms) : NEVER;
    p->grace_ms = q->grace_ms;
    p->next = s->processes;
    s->processes = p;
    s->process_count++;
    return p;
}

struct process *table_find(const struct supervisor *s, uint32_t number) {
    for (struct process *p = s->processes; p; p = p->next)
        if (p->number == number) return p;
    return NULL;
}

size_t table_running(const struct supervisor *s) {
    size_t count = 0;
    for (const struct process *p = s->processes; p; p = p->next) count += p->state != STATE_GONE;
    return count;
}

size_t table_leaders(const struct supervisor *s, const pid_t **leaders) {
    static pid_t pids[PROCESSES_MAX];
    size_t count = 0;
    for (const struct process *p = s->processes; p; p = p->next)
        if (p->leader && count < PROCESSES_MAX) pids[count++] = p->leader;
    *leaders = pids;
    return count;
}

void table_remove(struct supervisor *s, struct process *p) {
    struct process **at = &s->processes;
    while (*at != p) at = &(*at)->next;
    *at = p->next;
    s->process_count--;
    for (int i = 0; i < STREAMS; i++) {
        close_fd(&p->streams[i].fd);
        spool_free(&p->streams[i].spool);
    }
    close_fd(&p->reports_fd);
    close_fd(&p->slave_fd);
    report_close(s, p);
    close_fd(&p->input.fd);
    buffer_free(&p->input.buffer);
    buffer_free(&p->report);
    free(p->tag);
    free(p->kill.seen);
    free(p);
}

static bool forget_oldest(struct supervisor *s) {
    struct process *oldest = NULL;
    for (struct process *p = s->processes; p; p = p->next)
        if (p->state == STATE_GONE && !p->owed && !stream_owed(p) && (!oldest || p->gone < oldest->gone)) oldest = p;
    if (oldest) table_remove(s, oldest);
    return oldest;
}

void table_sweep(struct supervisor *s) {
    size_t finished = 0;
    for (struct process *p = s->processes, *next; p; p = next) {
        next = p->next;
        bool done = p->state == STATE_GONE && !p->owed;
        if (done && p->forget) table_remove(s, p);
        else finished += done && !stream_owed(p);
    }
    while (finished > FINISHED_MAX && forget_oldest(s)) finished--;
    while (spool_over_budget(SPOOL_HEADROOM) && forget_oldest(s)) continue;
}

void table_reset_reader(struct supervisor *s) {
    for (struct process *p = s->processes; p; p = p->next) {
        p->owed = 0;
        for (int i = 0; i < STREAMS; i++) p->streams[i].credit = 0;
        p->input.stale = p->input.buffer.size;
        p->input.consumed = 0;
    }
    s->told_everything = false;
}
