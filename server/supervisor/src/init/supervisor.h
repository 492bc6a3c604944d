/* The types that the modules of `supervisor init` share: the one supervisor, its connections and its processes. */
#ifndef INIT_SUPERVISOR_H
#define INIT_SUPERVISOR_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/protocol.h"
#include "base/request.h"
#include "base/spool.h"
#include "base/tree.h"
#include "sudo/password.h"

enum {
    CONNS_MAX = 5,      /* one that is served and four that have not sent HELLO yet */
    STREAMS = 2,
    PROCESSES_MAX = 256, /* the usual pids limit of a container allows no more anyway */
    REPORTS_PATH = 256,  /* of the folder of state reports */
    FAULT_MAX = 128,
    FINISHED_MAX = 64,   /* gone and not forgotten; the oldest is forgotten first */
    TUNNELS_MAX = 128,   /* a browser opens some dozens, a package manager fewer */
    LISTENERS = 2,       /* one for each family of loopback addresses */
};

enum state { STATE_STARTING, STATE_RUNNING, STATE_EXITED, STATE_GONE };

struct conn {
    int fd; /* -1: free, or the session's, which has lost its socket */
    struct buffer in, out;
    uint64_t start; /* place of the first byte of `out` in all that the session has sent */
    size_t acked;   /* bytes of `out` that the server has acknowledged; they are dropped together with others */
    size_t sent;    /* bytes of `out` that this socket has taken, or that needed no sending */
    uint64_t taken; /* bytes of the session's requests that have been served */
    uint64_t told;  /* of those: acknowledged to the server */
    int64_t deadline; /* for HELLO; NEVER once it has come */
    int64_t held;     /* when frames that are held back go out; 0: none are */
    bool urgent;      /* the server waits for something in `out` */
    bool wants_write;
};

enum kill_phase { KILL_IDLE, KILL_TERM, KILL_STOP, KILL_KILL };

/* The state of one kill, of a tree or of everything. */
struct kill {
    enum kill_phase phase;
    uint8_t reason;
    bool quiet;       /* nobody asked for it: no KILLED */
    int64_t deadline; /* of the phase */
    int64_t tick;     /* when to look again */
    int64_t last;     /* KILL: when to give up in any case */
    uint32_t alive;   /* KILL: how many were alive at the last deadline */
    pid_t *seen;      /* what the last round of STOP found */
    size_t seen_count;
};

struct stream {
    int fd; /* our end of the pipe or pty; -1: closed */
    struct spool spool;
    uint64_t cursor, credit;
    bool paused;   /* it is not read: its spool is full of what the server has not got */
    uint64_t gate; /* owed events wait until this much has been sent, or credit is used up */
};

/* Events that the server has not got yet; they are sent in this order. */
enum owed { OWED_EXIT = 1, OWED_KILLED = 2, OWED_GONE = 4 };

/* Bytes on their way to a process's standard input. */
struct input {
    int fd; /* the pipe; -1: none, or closed */
    struct buffer buffer;
    size_t stale;      /* bytes from an earlier connection: not acknowledged to this one */
    uint32_t consumed; /* to be acknowledged */
    bool at_end;       /* no more will come */
    uint8_t eofs;      /* pty: EOF characters to write after the buffer */
    uint8_t last;      /* pty: the last byte that came */
};

struct process {
    struct process *next;
    uint32_t number;
    enum state state;
    uint16_t flags;
    uint8_t owed, reason;
    bool forget;
    pid_t leader, main; /* leader is 0 when it is dead: its tree is what PID 1 inherited */
    bool leader_done;
    int reports_fd, slave_fd, state_fd;
    struct stream streams[STREAMS];
    struct input input;
    struct kill kill;
    int64_t born, started, ended, gone, timeout;
    uint32_t grace_ms;
    int status;
    int64_t user_us, system_us, max_rss_kb;
    uint32_t oom_before, oom_kills, refused_before, refused_forks, descendants, survivors;
    uint32_t alive; /* in its tree, by the last recount */
    uint64_t exit_totals[STREAMS];
    struct buffer report; /* what its shell told about its end */
    size_t report_size;   /* of all of it, where it has moved to the supervisor's `state` */
    char *tag;            /* the server's own, given back in each LISTING */
};

/* A TCP connection on loopback, whose other end is the server. Its events come once for each change, so what is
   known of its socket is kept here. */
struct tunnel {
    int fd; /* -1: free */
    uint32_t number;
    uint16_t port;         /* that it was opened to; 0: it was accepted */
    bool told;             /* the server knows of it */
    bool connecting, readable, writable;
    bool ended;            /* its program sends no more */
    bool closing, closed;  /* the server sends no more, and its program has been told */
    int error;             /* it is broken, and the server must learn it */
    uint64_t credit;       /* bytes that may go to the server */
    struct buffer buffer;  /* bytes on their way to its program */
    uint32_t held;         /* bytes of the window that are in use: in the buffer, or not acknowledged yet */
    uint32_t consumed;     /* of those: to be acknowledged */
};

struct tunnels {
    int listeners[LISTENERS]; /* IPv4 and IPv6; -1: none */
    bool waiting[LISTENERS];  /* somebody may wait to be accepted */
    uint16_t port;            /* that they listen on; 0: they do not */
    uint32_t places;          /* connections that the server takes in addition */
    uint32_t last;            /* number that was given last */
    uint32_t window;          /* bytes towards a program that may be unacknowledged */
    size_t count, turn;
    uint64_t mark;            /* the `conn_passed` at which the last batch of the tunnels' bytes has left */
    struct tunnel all[TUNNELS_MAX];
};

struct supervisor {
    int epoll, listener, signals;
    int spare; /* closed for a moment to refuse a connection when no descriptor is left */
    pid_t self;
    bool is_init, changes_user;
    bool owns_ipc;        /* its IPC namespace is the sandbox's own */
    gid_t group;          /* that everything we start is in as well, for the task's files; 0: none */
    int nice;             /* of what we start */
    struct rlimit files;  /* the same */
    int64_t started;
    unsigned long claim_ms; /* how long it waits for its first server */
    uint8_t token[TOKEN_MAX];
    size_t token_size;
    uint32_t orphan_ttl_ms;
    struct conn conns[CONNS_MAX];
    struct conn *active; /* the session that is served, with a socket or without; NULL: none */
    uint32_t session;    /* its number */
    int64_t last_seen;   /* when the last byte of a server came */
    struct process *processes;
    size_t process_count;
    uint32_t turn; /* the process whose output is sent next */
    char reports[REPORTS_PATH]; /* the folder of state reports; empty: there is none */
    char *state_tag;     /* of the process that was the last to end by itself with a report; NULL: none */
    struct buffer state; /* its report */
    struct kill everything;
    bool told_everything; /* KILLED for process 0 is owed */
    uint32_t everything_survivors;
    bool leaving;
    const char *socket; /* the path of ours */
    bool asked; /* by the server, and not because there is none */
    struct rlimit limits[RLIM_NLIMITS]; /* its own, as they must stay */
    char fault[FAULT_MAX];              /* why it can serve no longer; empty: it can */
    int64_t leave_by; /* when it leaves for that at the latest, whether its answers were read or not */
    struct scan scan;
    struct sudo sudo;
    struct tunnels tunnels;
};

#endif
