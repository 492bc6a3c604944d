/* The wire format of docs/protocol.md without any I/O: bytes in, requests out. */
#ifndef FRAME_H
#define FRAME_H

#include "bytes.h"

enum {
    PROTOCOL_VERSION = 2,
    FRAME_PREFIX = 9,             /* length, type, process */
    FRAME_MIN_LENGTH = 5,         /* type, process */
    FRAME_MAX_LENGTH = 1 << 20,   /* towards the supervisor */
    FRAME_MAX_ANSWER = 1 << 17,   /* from it */
    FRAME_MAX_HELLO = 128,        /* all that a stranger may make the supervisor hold */
    STDIN_MAX = 1 << 16,
    TOKEN_MIN = 16,
    TOKEN_MAX = 64,
    SIGNAL_MAX = 64,
    TAG_MAX = 1024,               /* what the server says of a process, for whoever serves it next */
    READ_MAX = 1 << 16,           /* of a spool at once */
    PASSWORD_MAX = 255, /* without its end */
};

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
};

enum spawn_flag { SPAWN_STDIN = 1, SPAWN_MERGE = 2, SPAWN_PTY = 4, SPAWN_REPORT = 8, SPAWN_ALL = 15 };

enum sudo_flag { SUDO_SET_PASSWORD = 1, SUDO_ALL = 1 };

enum stage { STAGE_REQUEST = 1, STAGE_FORK, STAGE_USER, STAGE_CWD, STAGE_EXEC, STAGE_PTY };

struct frame {
    uint8_t type;
    uint32_t process;
    const uint8_t *body;
    size_t size;
};

/* A list of strings that stands in a frame; `strings_copy` makes an argv of it. */
struct strings {
    uint32_t count;
    struct slice bytes;
};

struct spawn {
    uint8_t flags;
    struct slice user;
    uint64_t timeout_ms;
    uint32_t grace_ms;
    uint64_t spool, credit;
    uint16_t rows, cols;
    struct slice cwd;
    struct strings argv, env;
    struct slice tag;
};

struct sudo_request {
    uint8_t flags;
    uint64_t capabilities; /* what those who become root may hold, a bit for each */
    struct slice user, password;
};

struct request {
    enum request_type type;
    uint32_t process;
    uint32_t version, orphan_ttl_ms; /* HELLO */
    struct slice token;              /* HELLO */
    struct spawn spawn;              /* SPAWN */
    struct sudo_request sudo;        /* SUDO */
    struct slice data;               /* STDIN */
    uint8_t signal;                  /* SIGNAL */
    uint32_t grace_ms;               /* KILL, SHUTDOWN */
    uint8_t stream;                  /* CREDIT, ATTACH, READ: 1 or 2 */
    uint64_t cursor, credit;         /* ATTACH; CREDIT; READ: the cursor */
    uint32_t size;                   /* READ */
    uint16_t rows, cols;             /* RESIZE */
};

enum frame_state { FRAME_PARTIAL, FRAME_WHOLE, FRAME_BAD };

/* Look for one frame at the front of `data`; `used` is its size on the wire. */
enum frame_state frame_next(const uint8_t *data, size_t size, size_t max_length, struct frame *frame, size_t *used);
/* NULL, or what is wrong with the frame. */
const char *request_parse(const struct frame *frame, struct request *request);
/* A NULL-terminated array in one piece of memory (one free()); NULL: no memory. */
char **strings_copy(const struct strings *list);
/* A NUL-terminated copy; NULL: no memory. */
char *slice_copy(struct slice value);

/* Begin a frame in `out`; the answer goes to `frame_end` when the body has been written. */
size_t frame_begin(struct buffer *out, enum answer_type type, uint32_t process);
void frame_end(struct buffer *out, size_t start);

#endif
