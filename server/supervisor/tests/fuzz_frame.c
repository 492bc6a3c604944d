/* Feeds the frame decoder a folder of byte streams and many deterministic mutations of each:
   `fuzz_frame FOLDER COUNT`. A sanitizer ends it when the decoder does anything that it must not. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/request.h"

enum { STREAM_MAX = 1 << 16, CHANGES_MAX = 8 };

static uint64_t state;
static unsigned long frames, requests;

/* xorshift: the same mutations on every machine. */
static uint32_t next_random(uint32_t below) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)((state >> 16) % below);
}

/* Read every byte of what the decoder hands out, as its user would. */
static size_t touch(struct slice s) {
    size_t sum = 0;
    for (size_t i = 0; i < s.size; i++) sum += s.data[i];
    return sum;
}

static size_t use_spawn(const struct spawn *s) {
    char **argv = strings_copy(&s->argv), **env = strings_copy(&s->env), *cwd = slice_copy(s->cwd);
    size_t sum = 0;
    for (char **at = argv; at && *at; at++) sum += strlen(*at);
    for (char **at = env; at && *at; at++) sum += strlen(*at);
    if (cwd && strlen(cwd) != s->cwd.size) abort();
    free(argv);
    free(env);
    free(cwd);
    return sum + touch(s->user);
}

static void use(const struct frame *frame) {
    struct request q;
    frames++;
    if (request_parse(frame, &q)) return;
    requests++;
    size_t sum = touch(q.token) + touch(q.data) + touch(q.sudo.user) + touch(q.sudo.password);
    if (q.type == REQ_SUDO && (q.sudo.password.size < 1 || q.sudo.password.size > PASSWORD_MAX)) abort();
    if (q.type == REQ_SPAWN) sum += use_spawn(&q.spawn);
    if (q.type == REQ_SIGNAL && (q.signal < 1 || q.signal > SIGNAL_MAX)) abort();
    if ((q.type == REQ_CREDIT || q.type == REQ_ATTACH) && (q.stream < 1 || q.stream > 2)) abort();
    if (sum == SIZE_MAX) puts("");
}

/* A copy of the exact size: one byte read past its end is seen. */
static void decode(const uint8_t *bytes, size_t size) {
    uint8_t *data = malloc(size ? size : 1);
    if (!data) abort();
    memcpy(data, bytes, size);
    size_t done = 0, used;
    struct frame frame;
    while (frame_next(data + done, size - done, FRAME_MAX_LENGTH, &frame, &used) == FRAME_WHOLE) {
        if (used < FRAME_PREFIX || used > size - done) abort();
        use(&frame);
        done += used;
    }
    free(data);
}

static size_t mutate(uint8_t *data, size_t size) {
    static const uint32_t telling[] = {0, 1, 4, 5, 0x7f, 0x80, 0xff, 0xffff, 0x10000, 0x100000, 0x7fffffff, 0xffffffff};
    for (uint32_t i = 0, count = 1 + next_random(CHANGES_MAX); i < count && size; i++) {
        uint32_t at = next_random((uint32_t)size), what = next_random(5);
        if (what == 0) data[at] ^= (uint8_t)(1U << next_random(8));
        else if (what == 1) data[at] = (uint8_t)next_random(256);
        else if (what == 2 && size >= 4 && at <= size - 4) memcpy(data + at, &telling[next_random(12)], 4);
        else if (what == 3) size = at;
        else if (size < STREAM_MAX) {
            memmove(data + at + 1, data + at, size - at);
            size++;
        }
    }
    return size;
}

static void fuzz(const uint8_t *stream, size_t size, unsigned long count) {
    static uint8_t data[STREAM_MAX];
    decode(stream, size);
    for (unsigned long i = 0; i < count; i++) {
        memcpy(data, stream, size);
        decode(data, mutate(data, size));
    }
}

int main(int argc, char **argv) {
    static uint8_t stream[STREAM_MAX];
    char path[4096];
    DIR *folder = argc == 3 ? opendir(argv[1]) : NULL;
    if (!folder) return fputs("usage: fuzz_frame FOLDER COUNT\n", stderr), 2;
    unsigned long files = 0;
    for (struct dirent *name; (name = readdir(folder));) {
        if (name->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/%s", argv[1], name->d_name);
        FILE *file = fopen(path, "rb");
        if (!file) return perror(path), 1;
        size_t size = fread(stream, 1, sizeof stream, file);
        fclose(file);
        state = 0x9e3779b97f4a7c15;
        fuzz(stream, size, strtoul(argv[2], NULL, 10));
        files++;
    }
    closedir(folder);
    printf("%lu streams, %lu frames, %lu requests\n", files, frames, requests);
    return 0;
}
