#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"

static const int64_t READ_LIMIT = 10000000; /* us: files of a pseudo file system may have no end */

int reply_send(struct buffer *reply) {
    if (reply->failed) return 1;
    for (size_t done = 0; done < reply->size;) {
        ssize_t count = write(STDOUT_FILENO, reply->data + done, reply->size - done);
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) return 1;
        done += (size_t)count;
    }
    return 0;
}

static int refuse_with(enum refusal why, int error, uint64_t number, const char *text) {
    struct buffer reply = {0};
    put_u8(&reply, REPLY_REFUSED);
    put_u8(&reply, (uint8_t)why);
    put_u32(&reply, (uint32_t)error);
    put_u64(&reply, number);
    put_str(&reply, text, strlen(text));
    return reply_send(&reply);
}

int refuse(enum refusal why, uint64_t number, const char *text) { return refuse_with(why, 0, number, text); }

int refuse_system(const char *text) {
    int error = errno;
    char words[256];
    snprintf(words, sizeof words, "%s%s%s", text, *text ? ": " : "", strerror(error));
    return refuse_with(REFUSED_SYSTEM, error, 0, words);
}

int refuse_mode(mode_t mode) {
    if (S_ISDIR(mode)) return refuse(REFUSED_FOLDER, 0, "");
    const char *kind = S_ISFIFO(mode) ? "a FIFO" : S_ISSOCK(mode) ? "a socket" : "a device";
    return refuse(REFUSED_KIND, 0, kind);
}

uint64_t parse_count(const char *text) { return strtoull(text, NULL, 10); }

enum refusal read_whole(int fd, size_t most, struct buffer *out) {
    int64_t end = clock_now() + READ_LIMIT;
    for (;;) {
        /* One byte more than is taken shows that there is more. */
        size_t room = most + 1 - out->size, step = room < 1 << 16 ? room : 1 << 16;
        errno = ENOMEM;
        if (!buffer_reserve(out, step)) return REFUSED_SYSTEM;
        ssize_t count = read(fd, out->data + out->size, step);
        if (count == 0) return 0;
        if (count < 0 && errno != EINTR) return REFUSED_SYSTEM;
        if (count > 0) out->size += (size_t)count;
        if (out->size > most) return REFUSED_SIZE;
        if (clock_now() > end) return REFUSED_TIME;
    }
}

int open_regular(const char *path, struct stat *info) {
    /* Looked at before it is opened: to open a device or a FIFO may do something, or wait. */
    int found = open(path, O_PATH | O_CLOEXEC), fd = -1;
    if (found < 0 || fstat(found, info)) {
        refuse_system("");
    } else if (!S_ISREG(info->st_mode)) {
        refuse_mode(info->st_mode);
    } else {
        char name[64];
        snprintf(name, sizeof name, "/proc/self/fd/%d", found);
        fd = open(name, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        if (fd < 0) refuse_system("");
    }
    if (found >= 0) close(found);
    return fd;
}

int files_run(int argc, char **argv) {
    const char *what = argc ? argv[0] : "";
    if (!strcmp(what, "read") && argc == 6) return files_read(argv + 1);
    if (!strcmp(what, "fetch") && argc == 3) return files_fetch(argv + 1);
    if (!strcmp(what, "write") && argc == 3) return files_write(argv + 1);
    if (!strcmp(what, "edit") && argc == 5) return files_edit(argv + 1);
    if (!strcmp(what, "list") && argc >= 4) return files_list(argc - 1, argv + 1);
    fputs("usage: supervisor file read FIRST LINES BYTES PICTURE PATH | fetch BYTES PATH | write BYTES PATH |\n"
          "       edit COUNT OLD NEW PATH | list ENTRIES PATH PATTERN...\n", stderr);
    return 2;
}
