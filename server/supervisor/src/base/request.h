/* Requests of the protocol. Nothing here does I/O: a frame goes in, a request comes out. */
#ifndef BASE_REQUEST_H
#define BASE_REQUEST_H

#include "base/bytes.h"
#include "base/frame.h"
#include "base/protocol.h"

/* A list of strings inside a frame; `strings_copy` turns it into an argv. */
struct strings {
    uint32_t count;
    struct slice bytes;
};

struct spawn {
    uint16_t flags;
    struct slice user;
    uint64_t timeout_ms;
    uint32_t grace_ms;
    uint64_t spool, credit;
    uint16_t rows, cols;
    struct slice cwd;
    struct strings argv, env;
    struct slice tag, prologue;
};

struct sudo_request {
    uint8_t flags;
    uint64_t capabilities; /* that processes which become root may hold, one bit each */
    struct slice user, password;
};

struct request {
    enum request_type type;
    uint32_t process;
    uint32_t version, orphan_ttl_ms; /* HELLO */
    struct slice token;              /* HELLO */
    uint32_t session;                /* HELLO: the one to go on with; 0: a new one */
    uint64_t position;               /* HELLO, ACK: bytes of the session that the server has got */
    struct spawn spawn;              /* SPAWN */
    struct sudo_request sudo;        /* SUDO */
    struct slice data;               /* STDIN, TUNNEL_DATA */
    uint8_t signal;                  /* SIGNAL */
    uint32_t grace_ms;               /* KILL, SHUTDOWN */
    uint8_t reason;                  /* KILL */
    uint8_t stream;                  /* CREDIT, ATTACH, READ: 1 or 2 */
    uint64_t cursor, credit;         /* ATTACH; CREDIT; READ: the cursor */
    uint32_t size;                   /* READ; TUNNEL_CREDIT; STATE: where its piece begins */
    uint16_t port;                   /* LISTEN, OPEN */
    uint32_t places;                 /* LISTEN, ACCEPT */
    uint16_t rows, cols;             /* RESIZE */
};

/* Parses a frame. Returns NULL, or a fault for which the connection must end. */
const char *request_parse(const struct frame *frame, struct request *request);
/* Returns NULL, or the fault for which a SPAWN is answered with FAILED. */
const char *spawn_fault(const struct spawn *request);
/* Returns a NULL-terminated array in one allocation, or NULL when memory runs out. */
char **strings_copy(const struct strings *list);

#endif
