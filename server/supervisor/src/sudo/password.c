#include "sudo/password.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/fd.h"
#include "start/user.h"
#include "sudo/front.h"
#include "sudo/paths.h"
#include "sudo/shadow.h"

enum {
    PASSED_MAX = 2,
    STATUS_MAX = 1024,
    TRIES = 2, /* of one sudo. The second question can be another one, of an image that asks for two things */
};

static const char CONFIG[] = "/etc/sudo.conf";
/* sudo must look at /etc/group and not at the groups of the caller: a command has only the one of its profile. */
static const char CONFIG_LINES[] = "\nPath askpass " SUDO_ASKPASS "\nSet group_source dynamic\n";

static const char *const PLACES[] = {"/usr/local/bin/sudo", "/usr/local/sbin/sudo", "/usr/bin/sudo",
                                     "/usr/sbin/sudo",      "/bin/sudo",            "/sbin/sudo"};

/* Finds the image's own sudo through every link. A link to a program of another name is not sudo: some images have
   one instead, and it must not be moved. */
static bool find_program(char path[PATH_MAX]) {
    struct stat info;
    for (size_t i = 0; i < sizeof PLACES / sizeof *PLACES; i++)
        if (realpath(PLACES[i], path) && stat(path, &info) == 0 && S_ISREG(info.st_mode) && info.st_mode & S_ISUID &&
            info.st_uid == 0 && front_is(path))
            return true;
    return false;
}

static const char *add_config(void) {
    int fd = open(CONFIG, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0644);
    bool written = fd >= 0 && write(fd, CONFIG_LINES, sizeof CONFIG_LINES - 1) == sizeof CONFIG_LINES - 1;
    close_fd(&fd);
    return written ? NULL : "/etc/sudo.conf cannot be written";
}

/* Copies our own program. A link would not do: the kernel tells a program which file it is, whatever its name. */
static bool copy_self(const char *path) {
    struct stat info;
    int from = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    int to = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0755);
    bool copied = from >= 0 && to >= 0 && fstat(from, &info) == 0;
    for (off_t done = 0; copied && done < info.st_size;)
        copied = sendfile(to, from, &done, (size_t)(info.st_size - done)) > 0;
    close_fd(&from);
    close_fd(&to);
    return copied;
}

/* Moves the image's own sudo and puts the front in its place, where absolute paths, scripts and cleared environments
   find it. */
static const char *place_front(const char *real) {
    char self[PATH_MAX];
    ssize_t size = readlink("/proc/self/exe", self, sizeof self - 1);
    if (size <= 0) return "the supervisor's own program cannot be found";
    self[size] = 0;
    if (mkdir("/usr/lib", 0755) && errno != EEXIST) return "/usr/lib cannot be made";
    if (mkdir(SUDO_FOLDER, 0755) || symlink(self, SUDO_ASKPASS)) return SUDO_FOLDER " cannot be made";
    const char *fault = add_config();
    if (fault) return fault;
    if (rename(real, SUDO_REAL)) return "the image's sudo cannot be moved";
    if (copy_self(real)) return NULL;
    rename(SUDO_REAL, real);
    return "the image's sudo cannot be replaced";
}

/* Opens the socket. Everybody may send to it: what the kernel says about the sender and the descriptor decides who
   is answered. */
static int open_socket(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = SUDO_SOCKET};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on = 1;
    if (fd < 0) return -1;
    unlink(SUDO_SOCKET);
    bool open = setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) == 0 &&
                bind(fd, (struct sockaddr *)&address, sizeof address) == 0 && chmod(SUDO_SOCKET, 0666) == 0;
    if (!open) close_fd(&fd);
    return fd;
}

static const char *find_user(struct slice words, uid_t *uid) {
    struct identity who;
    char *user = slice_copy(words);
    const char *fault = user ? user_resolve(user, &who) : "there is no memory left";
    free(user);
    if (!fault && (!who.change || !who.uid)) fault = "the user is root";
    *uid = fault ? 0 : who.uid;
    return fault;
}

static const char *install(struct sudo *sudo, uid_t uid, bool set) {
    char real[PATH_MAX];
    if (!find_program(real)) return "the image has no sudo";
    const char *fault = set ? shadow_set(uid, sudo->password) : NULL;
    if (!fault) fault = place_front(real);
    if (fault) return fault;
    sudo->socket = open_socket();
    return sudo->socket >= 0 ? NULL : SUDO_SOCKET " cannot be opened";
}

const char *password_set_up(struct sudo *sudo, const struct sudo_request *q) {
    if (sudo->ready) return "sudo is set up already";
    if (q->flags & ~SUDO_ALL) return "the request has an unknown flag";
    uid_t uid;
    const char *fault = find_user(q->user, &uid);
    if (fault) return fault;
    memcpy(sudo->password, q->password.data, q->password.size);
    fault = install(sudo, uid, q->flags & SUDO_SET_PASSWORD);
    if (fault) {
        explicit_bzero(sudo->password, sizeof sudo->password);
        return fault;
    }
    sudo->password[q->password.size] = '\n';
    sudo->size = q->password.size + 1;
    sudo->uid = uid;
    sudo->capabilities = q->capabilities;
    sudo->ready = true;
    return NULL;
}

/* Reads two numbers after a name in /proc/PID/status; returns false when there is no such process. */
static bool read_status(pid_t pid, const char *name, unsigned numbers[2]) {
    char path[32], text[STATUS_MAX];
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    close_fd(&fd);
    if (size <= 0) return false;
    text[size] = 0;
    const char *at = strstr(text, name);
    if (!at) return false;
    char *end;
    numbers[0] = (unsigned)strtoul(at + strlen(name), &end, 10);
    numbers[1] = (unsigned)strtoul(end, &end, 10);
    return true;
}

/* Returns the sudo whose askpass program the sender is: its parent, which became root by a set-user-id program that the
   user started. Returns 0 when it is not one. */
static pid_t find_asker(const struct sudo *sudo, const struct ucred *who) {
    unsigned parent[2] = {0}, ids[2] = {0};
    if (who->uid != sudo->uid || !read_status(who->pid, "\nPPid:", parent) || parent[0] <= 1) return 0;
    bool is_sudo = read_status((pid_t)parent[0], "\nUid:", ids) && ids[0] == who->uid && ids[1] == 0;
    return is_sudo ? (pid_t)parent[0] : 0;
}

/* sudo asks again, after seconds, when it did not take an answer. Nobody can become root by a wrong password and set it
   right, so that the next sudo need not wait for the same. */
static bool is_refused(struct sudo *sudo, pid_t asker) {
    sudo->times = asker == sudo->asker ? sudo->times + 1 : 1;
    sudo->asker = asker;
    sudo->refused = sudo->refused || sudo->times > TRIES;
    return sudo->refused;
}

/* Returns whether this is the writing end of a pipe without a name: anybody may find and read a FIFO of root's. */
static bool is_writing_end(int fd) {
    struct statfs system;
    return (fcntl(fd, F_GETFL) & O_ACCMODE) == O_WRONLY && fstatfs(fd, &system) == 0 && system.f_type == PIPEFS_MAGIC;
}

/* Writes to sudo's own pipe only: a pipe, file or terminal that the user makes belongs to the user and not to root. */
static void write_password(const struct sudo *sudo, int fd) {
    struct stat info;
    char path[32];
    if (fstat(fd, &info) || !S_ISFIFO(info.st_mode) || info.st_uid != 0 || !is_writing_end(fd)) return;
    /* We open it again, because sudo shares the flags of its descriptor, and PID 1 must never block. */
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int own = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    if (own >= 0) (void)!write(own, sudo->password, sudo->size);
    close_fd(&own);
}

/* The macro of musl compares a length with a difference of pointers. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-compare"
static struct cmsghdr *next_part(struct msghdr *message, struct cmsghdr *part) { return CMSG_NXTHDR(message, part); }
#pragma GCC diagnostic pop

bool password_asked(struct sudo *sudo) {
    char byte;
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(PASSED_MAX * sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))];
    } control;
    struct iovec data = {&byte, 1};
    struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control.room};
    if (recvmsg(sudo->socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT) < 0) return false;
    struct ucred who = {0};
    int fds[PASSED_MAX] = {-1, -1};
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = next_part(&message, c)) {
        if (c->cmsg_level != SOL_SOCKET) continue;
        size_t size = c->cmsg_len - CMSG_LEN(0);
        if (c->cmsg_type == SCM_CREDENTIALS && size == sizeof who) memcpy(&who, CMSG_DATA(c), size);
        if (c->cmsg_type == SCM_RIGHTS && size <= sizeof fds) memcpy(fds, CMSG_DATA(c), size);
    }
    bool known = sudo->refused;
    pid_t asker = fds[0] >= 0 && who.pid > 0 ? find_asker(sudo, &who) : 0;
    if (asker && !is_refused(sudo, asker)) write_password(sudo, fds[0]);
    for (int i = 0; i < PASSED_MAX; i++) close_fd(&fds[i]);
    return sudo->refused && !known;
}
