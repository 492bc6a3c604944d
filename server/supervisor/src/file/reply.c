#include "file/reply.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int reply_send(struct buffer *reply) {
    if (reply->failed) return 1;
    for (size_t done = 0; done < reply->size;) {
        ssize_t count = write(STDOUT_FILENO, reply->data + done, reply->size - done);
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) return 1;
        done += (size_t)count;
    }
    buffer_free(reply);
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

