/* The events that the loop waits for: one epoll, whose events name their subject. */
#ifndef INIT_WATCH_H
#define INIT_WATCH_H

#include <stdbool.h>
#include <stdint.h>

struct supervisor;

/* The kind of an epoll event, stored above the number of a connection, process or tunnel. */
enum watch {
    WATCH_LISTENER = 1,
    WATCH_SIGNALS,
    WATCH_CONN,
    WATCH_REPORTS,
    WATCH_OUT,
    WATCH_ERR,
    WATCH_IN,
    WATCH_STATE,
    WATCH_ASKPASS,
    WATCH_TUNNELS, /* a listener of tunnels */
    WATCH_TUNNEL,
};

bool watch_add(struct supervisor *s, int fd, enum watch kind, uint32_t number, uint32_t events);
void watch_change(struct supervisor *s, int fd, enum watch kind, uint32_t number, uint32_t events);
/* Waits for nothing of a descriptor any more, which stays open. */
void watch_remove(struct supervisor *s, int fd);

#endif
