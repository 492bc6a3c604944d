#include "init/watch.h"

#include <sys/epoll.h>

#include "init/supervisor.h"

static struct epoll_event event_of(enum watch kind, uint32_t number, uint32_t events) {
    return (struct epoll_event){.events = events, .data.u64 = (uint64_t)kind << 32 | number};
}

bool watch_add(struct supervisor *s, int fd, enum watch kind, uint32_t number, uint32_t events) {
    struct epoll_event e = event_of(kind, number, events);
    return epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &e) == 0;
}

void watch_change(struct supervisor *s, int fd, enum watch kind, uint32_t number, uint32_t events) {
    struct epoll_event e = event_of(kind, number, events);
    epoll_ctl(s->epoll, EPOLL_CTL_MOD, fd, &e);
}

void watch_remove(struct supervisor *s, int fd) { epoll_ctl(s->epoll, EPOLL_CTL_DEL, fd, NULL); }
