#include "sudo/askpass.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "sudo/paths.h"

enum { ANSWER_MS = 5000 }; /* PID 1 answers at once, unless it is being killed, and sudo with it */

static bool send_pipe(int socket, int done) {
    int fds[] = {STDOUT_FILENO, done};
    char byte = 0;
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof fds)];
    } control = {0};
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = SUDO_SOCKET};
    struct iovec data = {&byte, 1};
    struct msghdr message = {
        .msg_name = &address, .msg_namelen = sizeof address, .msg_iov = &data, .msg_iovlen = 1,
        .msg_control = &control, .msg_controllen = sizeof control.room,
    };
    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    control.header.cmsg_len = CMSG_LEN(sizeof fds);
    memcpy(CMSG_DATA(&control.header), fds, sizeof fds);
    return sendmsg(socket, &message, MSG_NOSIGNAL) == 1;
}

int askpass_run(void) {
    int ends[2], fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || pipe(ends) || !send_pipe(fd, ends[1])) {
        fprintf(stderr, "askpass: cannot reach the supervisor: %s\n", strerror(errno));
        return 1;
    }
    close(ends[1]);
    /* PID 1 closes its copy of the other end when it has answered or refused. */
    struct pollfd done = {.fd = ends[0], .events = POLLIN};
    while (poll(&done, 1, ANSWER_MS) < 0 && errno == EINTR) continue;
    return 0;
}
