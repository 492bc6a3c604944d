#include "init/tunnel.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/bytes.h"
#include "base/fd.h"
#include "init/watch.h"

/* Bytes. A program that reads nothing may have the supervisor hold a window for each tunnel, and all windows together
   take an eighth of the sandbox's memory at most. */
enum { WINDOW_MIN = 16 << 10, WINDOW_MAX = 1 << 20, WINDOW_SHARE = 8 * TUNNELS_MAX };

/* Once for each change: a program that sends while nobody may read must not wake the loop again and again. */
static const uint32_t EVENTS = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;

void tunnels_prepare(struct supervisor *s, uint64_t memory) {
    uint64_t share = memory / WINDOW_SHARE;
    s->tunnels.window = share > WINDOW_MAX ? WINDOW_MAX : share < WINDOW_MIN ? WINDOW_MIN : (uint32_t)share;
    for (int i = 0; i < LISTENERS; i++) s->tunnels.listeners[i] = -1;
    for (int i = 0; i < TUNNELS_MAX; i++) s->tunnels.all[i].fd = -1;
}

struct tunnel *tunnel_find(struct supervisor *s, uint32_t number) {
    for (struct tunnel *t = s->tunnels.all; t < s->tunnels.all + TUNNELS_MAX; t++)
        if (t->fd >= 0 && t->number == number) return t;
    return NULL;
}

struct tunnel *tunnel_add(struct supervisor *s, int fd, uint32_t number) {
    struct tunnel *t = s->tunnels.all;
    while (t < s->tunnels.all + TUNNELS_MAX && t->fd >= 0) t++;
    uint32_t index = (uint32_t)(t - s->tunnels.all);
    if (index == TUNNELS_MAX || !watch_add(s, fd, WATCH_TUNNEL, index, EVENTS)) {
        close(fd);
        return NULL;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    *t = (struct tunnel){.fd = fd, .number = number, .credit = TUNNEL_CREDIT};
    s->tunnels.count++;
    return t;
}

void tunnel_close(struct supervisor *s, struct tunnel *t, bool broken) {
    struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    if (broken) setsockopt(t->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    close_fd(&t->fd);
    buffer_free(&t->buffer);
    *t = (struct tunnel){.fd = -1};
    s->tunnels.count--;
}

void tunnels_close(struct supervisor *s) {
    for (struct tunnel *t = s->tunnels.all; t < s->tunnels.all + TUNNELS_MAX; t++)
        if (t->fd >= 0) tunnel_close(s, t, true);
    s->tunnels.places = 0;
    s->tunnels.mark = 0;
}

/* Begins to connect; returns the socket, or -1 with errno. */
static int connect_to(int family, uint16_t port) {
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), error = 0;
    if (fd < 0) return -1;
    if (family == AF_INET) error = connect(fd, (struct sockaddr *)&four, sizeof four);
    else error = connect(fd, (struct sockaddr *)&six, sizeof six);
    if (error == 0 || errno == EINPROGRESS) return fd;
    error = errno;
    close(fd);
    errno = error;
    return -1;
}

int tunnel_open(struct supervisor *s, uint32_t number, uint16_t port) {
    int fd = connect_to(AF_INET, port), error = errno;
    if (fd < 0 && error == ECONNREFUSED) fd = connect_to(AF_INET6, port);
    if (fd < 0) return error;
    struct tunnel *t = tunnel_add(s, fd, number);
    if (!t) return ENOBUFS;
    t->port = port;
    t->connecting = true;
    return 0;
}

/* Puts a connection by IPv6 in the place of one by IPv4 that was refused; returns whether there is one. */
static bool try_other(struct supervisor *s, struct tunnel *t) {
    int fd = connect_to(AF_INET6, t->port);
    uint32_t index = (uint32_t)(t - s->tunnels.all);
    t->port = 0;
    if (fd < 0) return false;
    if (!watch_add(s, fd, WATCH_TUNNEL, index, EVENTS)) {
        close(fd);
        return false;
    }
    close(t->fd);
    t->fd = fd;
    return true;
}

/* Returns whether the tunnel is connected, or never will be. */
static bool finish_connecting(struct supervisor *s, struct tunnel *t, uint32_t events) {
    int error = 0;
    socklen_t size = sizeof error;
    if (!(events & (EPOLLOUT | EPOLLERR | EPOLLHUP))) return false;
    if (getsockopt(t->fd, SOL_SOCKET, SO_ERROR, &error, &size)) error = errno;
    if (error == ECONNREFUSED && t->port && try_other(s, t)) return false;
    t->error = error;
    t->connecting = false;
    return true;
}

void tunnel_event(struct supervisor *s, struct tunnel *t, uint32_t events) {
    if (t->fd < 0 || (t->connecting && !finish_connecting(s, t, events))) return;
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) t->readable = true;
    if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) t->writable = true;
}

/* Sends what the socket takes; returns how much, and notes why it takes no more. */
static size_t send_now(struct tunnel *t, const uint8_t *data, size_t size) {
    size_t sent = 0;
    while (t->writable && sent < size) {
        ssize_t count = send(t->fd, data + sent, size - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (count >= 0) sent += (size_t)count;
        else if (errno == EAGAIN) t->writable = false;
        else if (errno != EINTR) {
            t->error = errno;
            break;
        }
    }
    t->consumed += (uint32_t)sent;
    return sent;
}

const char *tunnel_write(struct supervisor *s, struct tunnel *t, struct slice data) {
    if (t->closing) return "bytes came after the end of a tunnel";
    if (data.size > s->tunnels.window - t->held) return "a tunnel has more bytes than its window allows";
    if (t->error) return NULL;
    t->held += (uint32_t)data.size;
    size_t sent = t->buffer.size || t->connecting ? 0 : send_now(t, data.data, data.size);
    put_bytes(&t->buffer, data.data + sent, data.size - sent);
    if (t->buffer.failed) t->error = ENOMEM;
    return NULL;
}

void tunnel_end(struct tunnel *t) { t->closing = true; }

void tunnel_flush(struct tunnel *t) {
    if (t->connecting || t->error) return;
    if (t->buffer.size && t->writable) buffer_drop_front(&t->buffer, send_now(t, t->buffer.data, t->buffer.size));
    if (!t->buffer.size && t->buffer.room) buffer_free(&t->buffer);
    if (!t->closing || t->closed || t->buffer.size || t->error) return;
    shutdown(t->fd, SHUT_WR);
    t->closed = true;
}
