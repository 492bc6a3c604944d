/* What the modules of `supervisor init` share: the one supervisor, its connections and its processes. */
#ifndef SUPERVISOR_H
#define SUPERVISOR_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "bytes.h"
#include "clock.h"
#include "frame.h"
#include "spool.h"
#include "tree.h"

enum {
    CONNS_MAX = 5,      /* one that is served and four that have not said HELLO yet */
    STREAMS = 2,
    PROCESSES_MAX = 256, /* a container's usual limit of pids could not hold more anyway */
    FINISHED_MAX = 64,   /* gone but not forgotten: the oldest is forgotten first */
};

enum state { STATE_STARTING, STATE_RUNNING, STATE_EXITED, STATE_GONE };
enum reason { REASON_ITSELF, REASON_TIMEOUT, REASON_KILL };

struct conn {
    int fd; /* -1: free */
    struct buffer in, out;
    size_t sent; /* of `out` */
    int64_t deadline; /* for HELLO; NEVER once it has come */
    int64_t held;     /* when what is held back goes out; 0: nothing is */
    bool urgent;      /* something in `out` is waited for */
    bool wants_write;
};

/* What PID 1 knows of sudo in its sandbox; all zero where the server never asked for it. */
struct sudo {
    bool ready;
    int socket;            /* askpass programs send to it */
    uid_t uid;             /* whose password it is */
    uint64_t capabilities; /* those that programs may get by becoming root */
    size_t size;
    char password[PASSWORD_MAX + 1]; /* with the newline that ends it on sudo's side */
};

enum kill_phase { KILL_IDLE, KILL_TERM, KILL_STOP, KILL_KILL };

/* One killing of one tree (or of everything), step by step. */
struct kill {
    enum kill_phase phase;
    uint8_t reason;
    bool quiet;       /* nobody asked for it: no KILLED */
    int64_t deadline; /* of the phase */
    int64_t tick;     /* when to look again */
    int64_t last;     /* KILL: when to give up at last */
    uint32_t alive;   /* KILL: how many were alive at the deadline before */
    pid_t *seen;      /* what the last round of STOP found */
    size_t seen_count;
};

struct stream {
    int fd; /* our end of the pipe or pty; -1: closed */
    struct spool spool;
    uint64_t cursor, credit;
    uint64_t gate; /* events that are owed wait until this much has been sent, or credit is out */
};

/* What a process's reader has not been told yet; sent in this order. */
enum owed { OWED_EXIT = 1, OWED_KILLED = 2, OWED_GONE = 4 };

/* What is on its way to a process's standard input. */
struct input {
    int fd; /* the pipe; -1: none, or closed */
    struct buffer buffer;
    size_t stale;      /* bytes from an earlier connection: not acknowledged to this one */
    uint32_t consumed; /* to be acknowledged */
    bool at_end;       /* no more will come */
    uint8_t eofs;      /* pty: so many EOF characters are to be written after the buffer */
    uint8_t last;      /* pty: the last byte that came */
};

struct process {
    struct process *next;
    uint32_t number;
    enum state state;
    uint8_t flags, owed, reason;
    bool forget;
    pid_t leader, main; /* leader 0: it is dead, its tree is what PID 1 got */
    bool leader_done;
    int reports_fd, slave_fd, state_fd;
    struct stream streams[STREAMS];
    struct input input;
    struct kill kill;
    int64_t born, started, ended, gone, timeout;
    uint32_t grace_ms;
    int status;
    int64_t user_us, system_us, max_rss_kb;
    uint32_t oom_before, oom_kills, descendants, survivors;
    uint64_t exit_totals[STREAMS];
    struct buffer report; /* cwd and environment as they stand in the EXIT */
    char *tag;            /* the server's own, given back in each LISTING */
};

struct supervisor {
    int epoll, listener, signals;
    int spare; /* given up for a moment to turn a connection away when no descriptor is left */
    pid_t self;
    bool is_init, changes_user;
    int nice;             /* of what we start */
    struct rlimit files;  /* the same */
    int64_t started;
    uint8_t token[TOKEN_MAX];
    size_t token_size;
    uint32_t orphan_ttl_ms;
    struct conn conns[CONNS_MAX];
    struct conn *active; /* the connection that is served; NULL: none */
    int64_t last_seen;   /* when there was one at last */
    struct process *processes;
    size_t process_count;
    uint32_t turn; /* the process whose output is sent next */
    struct buffer state; /* a tag, and the report of its process: the last one that ended by itself */
    struct kill everything;
    bool told_everything; /* KILLED for process 0 is owed */
    uint32_t everything_survivors;
    bool leaving;
    struct scan scan;
    struct sudo sudo;
};

/* --- loop.c --- */

/* Kill everything, then end the loop. */
void leave(struct supervisor *s, uint32_t grace_ms);

/* What an epoll event is about: the kind stands above the number of a connection or process. */
enum watch { WATCH_LISTENER = 1, WATCH_SIGNALS, WATCH_CONN, WATCH_REPORTS, WATCH_OUT, WATCH_ERR, WATCH_IN, WATCH_ASKPASS };

int loop_run(struct supervisor *s);
bool watch_add(struct supervisor *s, int fd, enum watch kind, uint32_t number, uint32_t events);
void watch_change(struct supervisor *s, int fd, enum watch kind, uint32_t number, uint32_t events);
/* Close a descriptor if it is open, and mark it so. */
void close_fd(int *fd);

/* --- conn.c --- */

void conn_accept(struct supervisor *s);
void conn_event(struct supervisor *s, struct conn *c, uint32_t events);
/* Say what is wrong, as far as the socket takes it now, and close. */
void conn_refuse(struct supervisor *s, struct conn *c, const char *fault);
void conn_close(struct supervisor *s, struct conn *c);
/* What the active connection's buffer holds. */
size_t conn_waiting(const struct conn *c);
/* Produce what is owed and write it, as far as the socket takes it. */
void conn_serve(struct supervisor *s);
int64_t conn_next(const struct supervisor *s);
void conn_expire(struct supervisor *s, int64_t now);

/* --- request.c --- */

/* Do what a frame asks; NULL, or why the connection must end. */
const char *request_serve(struct supervisor *s, struct conn *c, const struct frame *frame);

/* --- answer.c --- */

void answer_welcome(struct supervisor *s, bool first_claim);
void answer_failed(struct supervisor *s, uint32_t number, int stage, int error, const char *text);
void answer_killed(struct supervisor *s, uint32_t number, uint8_t reason, uint32_t survivors, const struct process *p);
void answer_listing(struct supervisor *s);
void answer_ack(struct supervisor *s, uint32_t number, uint32_t count);
void answer_pong(struct supervisor *s);
void answer_state(struct supervisor *s);
/* A piece of a spool; `p` NULL: there is no such process. */
void answer_data(struct supervisor *s, const struct request *q, const struct process *p);
/* `problem` is empty when sudo is ready. */
void answer_sudo(struct supervisor *s, const char *problem);
/* Fill the connection's buffer with output and what else is owed; true: it is full, and more is there. */
bool answer_pump(struct supervisor *s);

/* --- process.c --- */

struct process *process_find(const struct supervisor *s, uint32_t number);
void process_remove(struct supervisor *s, struct process *p);
/* Forget what may be forgotten, and what must be to stay within the bounds. */
void process_sweep(struct supervisor *s);
/* The connection is another one, or none: it has no credit, and is not told what came before it. */
void process_reset_reader(struct supervisor *s);
void process_report(struct supervisor *s, struct process *p);
void process_output(struct process *p, int stream);
void process_reap(struct supervisor *s);
void process_ended(struct supervisor *s, struct process *p, int status, uint32_t descendants);
void process_gone(struct supervisor *s, struct process *p);
void process_attach(struct process *p, int stream, uint64_t cursor, uint64_t credit);
/* Leaders that live, for a scan; the array is valid until the next call. */
size_t process_leaders(const struct supervisor *s, const pid_t **leaders);

/* --- spawn.c --- */

/* Start a process; NULL, or why the connection must end. What cannot be started is answered with FAILED. */
const char *spawn(struct supervisor *s, uint32_t number, const struct spawn *request);

/* --- input.c --- */

const char *input_add(struct supervisor *s, struct process *p, struct slice data);
void input_end(struct supervisor *s, struct process *p);
void input_flush(struct supervisor *s, struct process *p);
/* Throw away what is left and acknowledge it. */
void input_close(struct process *p);

/* --- sudo.c --- */

/* Let the user of this sandbox become root by sudo, with a password that only sudo gets; answered with SUDO. */
void sudo_set_up(struct supervisor *s, const struct sudo_request *request);
/* An askpass program asks for the password. */
void sudo_asked(struct supervisor *s);

/* --- kill.c --- */

/* Kill a process's tree, or everything (NULL); a kill that is under way is hurried up. */
void kill_begin(struct supervisor *s, struct process *p, enum reason reason, uint32_t grace_ms, bool quiet);
/* Go on with every kill that is due. */
void kill_run(struct supervisor *s, int64_t now);
/* The tree of `p` is gone: whoever kills it is done. */
void kill_settle(struct supervisor *s, struct process *p);
uint32_t kill_count(struct supervisor *s, const struct process *p);
int64_t kill_next(const struct supervisor *s);

#endif
