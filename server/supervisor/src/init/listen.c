#include "init/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "init/tunnel.h"
#include "init/watch.h"

enum {
    WAITING_MAX = 64,         /* connections that the kernel keeps for us */
    ACCEPTED_AT_ONCE = 16,    /* in a turn of the loop: a flood of them delays nothing else */
    SOCKET_BUFFER = 512 << 10, /* bytes, each way: on cgroup v1 they are in nobody's memory limit */
};

static int listen_on(const struct sockaddr *address, socklen_t size) {
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1, room = SOCKET_BUFFER;
    if (fd < 0) return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    if (address->sa_family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    if (bind(fd, address, size) == 0 && listen(fd, WAITING_MAX) == 0) return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

static uint16_t port_of(int fd) {
    struct sockaddr_in address = {0};
    socklen_t size = sizeof address;
    return getsockname(fd, (struct sockaddr *)&address, &size) ? 0 : ntohs(address.sin_port);
}

int listen_begin(struct supervisor *s, uint16_t port) {
    struct tunnels *n = &s->tunnels;
    if (n->port) return 0;
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    n->listeners[0] = listen_on((struct sockaddr *)&four, sizeof four);
    if (n->listeners[0] < 0) return errno;
    n->port = port_of(n->listeners[0]);
    /* A sandbox may have no IPv6, and nobody needs it there. */
    struct sockaddr_in6 six = {
        .sin6_family = AF_INET6, .sin6_port = htons(n->port), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    n->listeners[1] = listen_on((struct sockaddr *)&six, sizeof six);
    for (uint32_t i = 0; i < LISTENERS; i++)
        if (n->listeners[i] >= 0 && !watch_add(s, n->listeners[i], WATCH_TUNNELS, i, EPOLLIN | EPOLLET))
            close_fd(&n->listeners[i]);
    return 0;
}

uint8_t listen_families(const struct supervisor *s) {
    const int *fds = s->tunnels.listeners;
    return (uint8_t)((fds[0] >= 0 ? LOOPBACK_IPV4 : 0) | (fds[1] >= 0 ? LOOPBACK_IPV6 : 0));
}

/* Returns whether it made a tunnel. */
static bool accept_one(struct supervisor *s, int from) {
    struct tunnels *n = &s->tunnels;
    int fd = accept4(n->listeners[from], NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        /* Out of descriptors: whoever waits is asked again when something has happened. */
        if (errno != EMFILE && errno != ENFILE && errno != ECONNABORTED && errno != EINTR) n->waiting[from] = false;
        return false;
    }
    uint32_t number = TUNNEL_ACCEPTED;
    while (tunnel_find(s, number = TUNNEL_ACCEPTED | ++n->last)) continue;
    return tunnel_add(s, fd, number);
}

bool listen_accept(struct supervisor *s) {
    struct tunnels *n = &s->tunnels;
    for (int i = 0, left = ACCEPTED_AT_ONCE; i < LISTENERS; i++)
        while (n->listeners[i] >= 0 && n->waiting[i] && n->places && n->count < TUNNELS_MAX) {
            if (!left--) return true;
            if (!accept_one(s, i)) break;
            n->places--;
        }
    return false;
}
