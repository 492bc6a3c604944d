/* The numbers that docs/protocol.md defines. */
#ifndef BASE_PROTOCOL_H
#define BASE_PROTOCOL_H

enum {
    PROTOCOL_VERSION = 7,
    STDIN_MAX = 1 << 16,
    TOKEN_MIN = 16,
    TOKEN_MAX = 64,
    SIGNAL_MAX = 64,
    TAG_MAX = 1024,               /* what the server says of a process, for whoever serves it next */
    READ_MAX = 1 << 16,           /* of a spool at once */
    REPORT_MAX = 4 << 20,         /* of a state report: more than any environment that a program can be started with */
    REPORT_PIECE = 1 << 16,       /* of it in one frame */
    PASSWORD_MAX = 255, /* without its end */
    TUNNEL_PIECE = 1 << 16,       /* of a tunnel in one frame */
    TUNNEL_CREDIT = 1 << 16,      /* bytes that a tunnel may send to the server before its first TUNNEL_CREDIT */
};

/* Numbers of tunnels: the supervisor chooses those of what it accepts, the server those of what it opens. */
#define TUNNEL_ACCEPTED 0x80000000U

/* A number of processes that could not be found out: for those that need not be counted, 0 would be a promise. */
#define COUNT_UNKNOWN UINT32_MAX

/* Why a main process ended. KILL says which of the last two it is to be. */
enum reason { REASON_ITSELF, REASON_TIMEOUT, REASON_KILL, REASON_CANCEL };

enum request_type {
    REQ_HELLO = 0x01,
    REQ_SPAWN,
    REQ_STDIN,
    REQ_STDIN_EOF,
    REQ_SIGNAL,
    REQ_KILL,
    REQ_CREDIT,
    REQ_ATTACH,
    REQ_LIST,
    REQ_FORGET,
    REQ_RESIZE,
    REQ_PING,
    REQ_SHUTDOWN,
    REQ_READ,
    REQ_SUDO,
    REQ_STATE,
    REQ_NO_REPORT,
    REQ_LISTEN,
    REQ_ACCEPT,
    REQ_OPEN,
    REQ_TUNNEL_DATA,
    REQ_TUNNEL_CREDIT,
    REQ_TUNNEL_END,
    REQ_TUNNEL_RESET,
    REQ_ACK,
};

enum answer_type {
    ANS_WELCOME = 0x81,
    ANS_SPAWNED,
    ANS_FAILED,
    ANS_OUTPUT,
    ANS_STDIN_ACK,
    ANS_EXIT,
    ANS_KILLED,
    ANS_GONE,
    ANS_LISTING,
    ANS_PONG,
    ANS_ERROR,
    ANS_DATA,
    ANS_SUDO,
    ANS_STATE,
    ANS_LISTENING,
    ANS_TUNNEL,
    ANS_TUNNEL_DATA,
    ANS_TUNNEL_CREDIT,
    ANS_TUNNEL_END,
    ANS_TUNNEL_RESET,
    ANS_ACK,
};

enum spawn_flag {
    SPAWN_STDIN = 1,
    SPAWN_MERGE = 2,
    SPAWN_PTY = 4,
    SPAWN_REPORT = 8,
    SPAWN_HIDE = 16,
    SPAWN_SHORT_NAME = 32,
    SPAWN_BULK_INPUT = 64,
    SPAWN_HOLD = 128,
    SPAWN_ALL = 255,
};

/* Addresses that it listens on. */
enum loopback { LOOPBACK_IPV4 = 1, LOOPBACK_IPV6 = 2 };

enum sudo_flag { SUDO_SET_PASSWORD = 1, SUDO_ALL = 1 };

enum stage { STAGE_REQUEST = 1, STAGE_FORK, STAGE_USER, STAGE_CWD, STAGE_EXEC, STAGE_PTY };

#endif
