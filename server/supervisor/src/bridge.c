#include "bridge.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"

enum {
    CHUNK = 256 << 10, /* bytes, and those of the engine's pipes: files that pass by wake fewer programs */
    RETRY_US = 10000,      /* the supervisor was started a moment ago and may not listen yet */
    LINGER_MS = 1000,      /* how long the last bytes may take once their sender has ended */
};
static const int64_t CONNECT_LIMIT = 5000000;

/* One direction, with the bytes that were read and not written yet. */
struct lane {
    int from, to;
    uint8_t data[CHUNK];
    size_t start, end;
    bool ended;
};

static int connect_to(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    errno = ENAMETOOLONG;
    if (strlen(path) >= sizeof address.sun_path) return -1;
    memcpy(address.sun_path, path, strlen(path));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int64_t end = clock_now() + CONNECT_LIMIT;
    while (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address)) {
        bool early = errno == ENOENT || errno == ECONNREFUSED || errno == EAGAIN || errno == EINTR;
        if (!early || clock_now() >= end) {
            int why = errno;
            close(fd);
            errno = why;
            return -1;
        }
        usleep(RETRY_US);
    }
    return fd;
}

static bool passing(ssize_t count) { return count < 0 && (errno == EAGAIN || errno == EINTR); }

/* Root by sudo can put its own socket in the place of the supervisor's, and would get the token. When we were sent
   into a container from outside, only PID 1 is the supervisor. gVisor reports our own pid as the peer's, so there we
   cannot check. */
static bool is_supervisor(int fd) {
    struct ucred peer;
    socklen_t size = sizeof peer;
    if (getppid() != 0) return true;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && (peer.pid == 1 || peer.pid == getpid());
}

/* Moves the bytes that can be moved now; returns false when the receiving side is gone. */
static bool move(struct lane *l, short can_read, short can_write) {
    if (can_read && l->start == l->end && !l->ended) {
        ssize_t count = read(l->from, l->data, sizeof l->data);
        if (!passing(count)) {
            l->start = 0;
            l->end = count > 0 ? (size_t)count : 0;
            l->ended = count <= 0;
            can_write = 1;
        }
    }
    if (!can_write || l->start == l->end) return true;
    ssize_t count = write(l->to, l->data + l->start, l->end - l->start);
    if (count > 0) l->start += (size_t)count;
    return count > 0 || passing(count);
}

static bool over(const struct lane *l) { return l->ended && l->start == l->end; }

static void carry(struct lane *up, struct lane *down) {
    int64_t end = NEVER;
    while (!over(up) && !over(down)) {
        struct pollfd p[4] = {
            {.fd = up->start == up->end && !up->ended ? up->from : -1, .events = POLLIN},
            {.fd = up->start < up->end ? up->to : -1, .events = POLLOUT},
            {.fd = down->start == down->end && !down->ended ? down->from : -1, .events = POLLIN},
            {.fd = down->start < down->end ? down->to : -1, .events = POLLOUT},
        };
        if ((up->ended || down->ended) && end == NEVER) end = clock_now() + LINGER_MS * MS;
        int64_t left = end == NEVER ? -1 : (end - clock_now()) / MS;
        if (end != NEVER && left <= 0) return;
        if (poll(p, 4, (int)left) < 0 && errno != EINTR) return;
        if (!move(up, p[0].revents, p[1].revents) || !move(down, p[2].revents, p[3].revents)) return;
    }
}

int bridge_run(const char *path) {
    static struct lane up, down;
    signal(SIGPIPE, SIG_IGN);
    int fd = connect_to(path);
    if (fd < 0) {
        fprintf(stderr, "supervisor: cannot connect to '%s': %s\n", path, strerror(errno));
        return 1;
    }
    if (!is_supervisor(fd)) {
        fprintf(stderr, "supervisor: somebody else than PID 1 listens at '%s'\n", path);
        return 1;
    }
    int in = fcntl(STDIN_FILENO, F_GETFL), out = fcntl(STDOUT_FILENO, F_GETFL);
    fcntl(STDIN_FILENO, F_SETFL, in | O_NONBLOCK);
    fcntl(STDOUT_FILENO, F_SETFL, out | O_NONBLOCK);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    /* The kernel may refuse, and they need not be pipes. */
    fcntl(STDIN_FILENO, F_SETPIPE_SZ, CHUNK);
    fcntl(STDOUT_FILENO, F_SETPIPE_SZ, CHUNK);
    up = (struct lane){.from = STDIN_FILENO, .to = fd};
    down = (struct lane){.from = fd, .to = STDOUT_FILENO};
    carry(&up, &down);
    /* The flags belong to the open file description, which others may share. */
    fcntl(STDIN_FILENO, F_SETFL, in);
    fcntl(STDOUT_FILENO, F_SETFL, out);
    return 0;
}
