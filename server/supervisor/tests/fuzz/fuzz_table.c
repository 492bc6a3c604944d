/* The table of processes, and the answers that are made of it. The input is a list of steps: a letter, and a byte for
   each operand; blanks may stand between steps. Nothing is started and nothing is sent: the steps say what becomes of
   a process. */
#include "init/table.h"

#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/spool.h"
#include "expected.h"
#include "fuzz.h"
#include "init/answer.h"

enum {
    REQUESTS = 200 << 10, /* bytes that count as served between two pumps: the second one says so */
    PIECE = 61,           /* bytes: output and cursors come in multiples of it */
    CHUNK = 32 << 10,     /* bytes that a pipe takes at once */
    BUDGET = 512 << 10,   /* bytes: the spools' budget comes in multiples of it */
    BUDGET_UNITS = 64,
};

unsigned long fuzz_taken, fuzz_refused;

static int pipe_ends[2];
static int64_t now;

/* --- output and answers ---------------------------------------------------------------------------------------- */

static void write_output(struct process *p, int stream, size_t size) {
    struct spool *spool = &p->streams[stream].spool;
    uint8_t chunk[CHUNK];
    for (size_t count; size; size -= count) {
        count = size < CHUNK ? size : CHUNK;
        for (size_t i = 0; i < count; i++) chunk[i] = byte_at(p->number, stream, spool->total + i);
        fuzz_check(write(pipe_ends[1], chunk, count) == (ssize_t)count);
        for (size_t left = count; left;) {
            ssize_t taken = spool_read(spool, pipe_ends[0], left);
            fuzz_check(taken > 0);
            left -= (size_t)taken;
        }
    }
}

/* Until nothing is owed that may be sent. */
static void pump(void) {
    while (answer_pump(&s)) check_answers();
    s.active->taken += REQUESTS;
    answer_acknowledge(&s);
    check_answers();
    for (const struct process *p = s.processes; p; p = p->next)
        for (int i = 0; i < STREAMS && p->state != STATE_STARTING; i++)
            fuzz_check(!p->streams[i].credit || p->streams[i].cursor >= p->streams[i].spool.total);
}

/* --- what becomes of processes --------------------------------------------------------------------------------- */

static void add(uint32_t number, uint8_t how) {
    if (expected[number].present) return;
    static uint8_t tag[TAG_MAX];
    uint16_t flags = how & (SPAWN_ALL ^ SPAWN_HOLD); /* what the harness expects is not that of output that is held */
    struct spawn q = {.flags = flags, .spool = (uint64_t)4096 << (how >> 5), .credit = (uint64_t)how * PIECE};
    q.timeout_ms = how & 1 ? UINT64_MAX : 0;
    memset(tag, 't', sizeof tag);
    q.tag = (struct slice){tag, how & 16 ? sizeof tag : how % 4};
    struct process *p = table_add(&s, number, &q);
    fuzz_check(p && p == table_find(&s, number) && strlen(p->tag) == q.tag.size);
    expected[number] = (struct expected){.present = true, .credit = {q.credit, q.credit}};
}

static void end(struct process *p) {
    if (p->state != STATE_RUNNING) return;
    p->state = STATE_EXITED;
    p->ended = ++now;
    for (int i = 0; i < STREAMS; i++) p->streams[i].gate = p->streams[i].spool.total;
    put_bytes(&p->report, "report", 6);
    p->report_size = p->report.size;
    if (!s.state_tag) s.state_tag = strdup("tag"), put_bytes(&s.state, "report", 6);
    if (s.active) p->owed |= OWED_EXIT;
}

static void bury(struct process *p) {
    end(p);
    if (p->state != STATE_EXITED) return;
    p->state = STATE_GONE;
    p->leader = 0;
    p->gone = ++now;
    if (s.active) p->owed |= OWED_GONE;
    else p->owed = 0;
}

static void forget(struct process *p) {
    p->forget = true;
    if (p->state != STATE_GONE || p->owed) return;
    expected[p->number].present = false;
    table_remove(&s, p);
}

static bool is_done(const struct process *p) { return p->state == STATE_GONE && !p->owed; }

/* Only what is done is forgotten: what was marked for it, and of the others the oldest first. */
static void sweep(void) {
    int64_t gone[NUMBERS], newest = 0, oldest = INT64_MAX;
    for (const struct process *p = s.processes; p; p = p->next)
        gone[p->number] = !is_done(p) ? -1 : p->forget ? 0 : p->gone;
    table_sweep(&s);
    size_t finished = 0;
    for (uint32_t number = 0; number < NUMBERS; number++) {
        const struct process *p = table_find(&s, number);
        if (!p && expected[number].present) {
            fuzz_check(gone[number] >= 0);
            if (gone[number] > newest) newest = gone[number];
            expected[number].present = false;
        }
        if (!p || !is_done(p)) continue;
        fuzz_check(!p->forget);
        finished++;
        if (p->gone < oldest) oldest = p->gone;
    }
    fuzz_check(finished <= FINISHED_MAX && newest < oldest);
}

/* --- steps ----------------------------------------------------------------------------------------------------- */

/* Another server, or none: what was promised to the one before does not count. */
static void connect_server(bool there) {
    buffer_free(&s.conns[0].out);
    s.conns[0] = (struct conn){.fd = -1};
    for (int i = 0; i < NUMBERS; i++)
        for (int stream = 0; stream < STREAMS; stream++) expected[i].credit[stream] = 0;
    s.active = there ? &s.conns[0] : NULL;
    table_reset_reader(&s);
}

static void answer(uint8_t what) {
    switch (what % 6) {
    case 0: answer_welcome(&s.active->out, &s, what & 8); break;
    case 1: answer_failed(&s, what & 127, STAGE_EXEC, 2, "there is none"); break;
    case 2: answer_pong(&s); break;
    case 3: answer_sudo(&s, what & 8 ? "there is none" : ""); break;
    case 4: answer_state(&s, what >> 4); break;
    default: answer_listing(&s); break;
    }
    check_answers();
}

static void read_back(const struct process *p, uint32_t number, struct reader *r) {
    struct request q = {.type = REQ_READ, .process = number, .stream = (uint8_t)(1 + get_u8(r) % STREAMS)};
    uint8_t at = get_u8(r);
    q.cursor = at == 255 ? UINT64_MAX : (uint64_t)at * PIECE;
    q.size = (uint32_t)get_u8(r) * 256;
    answer_data(&s, &q, p);
    check_answers();
}

/* Credit and cursors, as requests change them. */
static void ask_for(struct process *p, bool attach, struct reader *r) {
    int stream = get_u8(r) % STREAMS;
    struct stream *to = &p->streams[stream];
    struct expected *e = &expected[p->number];
    if (attach) to->cursor = e->next[stream] = (uint64_t)get_u8(r) * PIECE;
    to->credit = e->credit[stream] = (uint64_t)get_u8(r) * 8 * PIECE;
}

/* A step about a process of the table. */
static void change(struct process *p, uint8_t step, struct reader *r) {
    int stream;
    switch (step) {
    case 'r':
        if (p->state == STATE_STARTING) p->state = STATE_RUNNING, p->leader = p->main = (pid_t)p->number + 2;
        if (s.active) answer_spawned(&s, p), check_answers();
        break;
    case 'x': end(p); break;
    case 'g': bury(p); break;
    case 'k': p->owed |= s.active && p->state >= STATE_EXITED ? OWED_KILLED : 0; break;
    case 'i': p->input.consumed += get_u8(r); break;
    case 'f': forget(p); break;
    case 't':
    case 'c': ask_for(p, step == 't', r); break;
    case 'w':
        stream = get_u8(r) % STREAMS;
        write_output(p, stream, (size_t)get_u8(r) * 16 * PIECE);
        break;
    default: fuzz_refused++; break;
    }
}

static void take_step(struct reader *r) {
    uint8_t step = get_u8(r);
    if (step == ' ' || step == '\n') return;
    uint8_t operand = get_u8(r);
    uint32_t number = operand % NUMBERS;
    struct process *p = table_find(&s, number);
    fuzz_check(!p == !expected[number].present);
    if (step == 'a') add(number, get_u8(r));
    else if (step == 's') sweep();
    else if (step == 'b') spool_set_budget((size_t)operand * BUDGET);
    else if (step == 'h') connect_server(operand & 1);
    else if (step == 'e') s.told_everything = true;
    else if (step == 'd' && s.active) read_back(p, number, r);
    else if (step == 'p' && s.active) pump();
    else if (step == 'v' && s.active) answer(operand);
    else if (p) change(p, step, r);
}

static void check_table(void) {
    const pid_t *leaders;
    size_t count = 0, present = 0, led = 0, running = 0;
    for (const struct process *p = s.processes; p; p = p->next, count++) {
        fuzz_check(p->number < NUMBERS && table_find(&s, p->number) == p);
        led += p->leader != 0;
        running += p->state != STATE_GONE;
    }
    for (int i = 0; i < NUMBERS; i++) present += expected[i].present;
    fuzz_check(count == present && count == s.process_count);
    fuzz_check(table_running(&s) == running && table_leaders(&s, &leaders) == led);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!pipe_ends[1]) fuzz_check(pipe(pipe_ends) == 0);
    s = (struct supervisor){.epoll = -1};
    for (int i = 0; i < CONNS_MAX; i++) s.conns[i].fd = -1;
    memset(expected, 0, sizeof expected);
    spool_set_budget(BUDGET_UNITS * BUDGET);
    connect_server(true);
    for (struct reader r = {data, size, false}; r.left;) {
        take_step(&r);
        check_table();
    }
    while (s.processes) table_remove(&s, s.processes);
    connect_server(false);
    /* All of the budget is left: no spool holds memory any more. */
    spool_set_budget(BUDGET);
    fuzz_check(!s.process_count && !spool_over_budget(BUDGET));
    return 0;
}
