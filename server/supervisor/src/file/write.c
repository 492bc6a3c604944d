#include "file/write.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "file/crc.h"
#include "file/regular.h"
#include "file/replace.h"
#include "file/reply.h"
#include "file/target.h"
#include "file/where.h"

enum {
    INPUT_MAX = 64 << 20, /* bytes */
};

/* Reads exactly `size` bytes of standard input: what a lost connection cut off must not become a file. Returns false
   when the refusal has been written. */
static bool read_input(size_t size, struct buffer *out) {
    enum refusal why = size > INPUT_MAX ? REFUSED_SIZE : read_whole(STDIN_FILENO, size, out);
    if (why == REFUSED_SYSTEM) return refuse_system("standard input"), false;
    if (!why && out->size != size) why = REFUSED_INPUT;
    return why ? refuse(why, out->size, ""), false : true;
}

/* Whether what stands there is what the server expects: `any`, `new` (nothing), or SIZE:CRC. */
static bool is_expected(const struct target *t, const char *expected) {
    if (!strcmp(expected, "any")) return true;
    if (!strcmp(expected, "new")) return !t->exists;
    char *end;
    uint64_t size = strtoull(expected, &end, 10), crc = *end == ':' ? strtoull(end + 1, NULL, 10) : 0;
    if (!t->exists || t->file < 0 || (uint64_t)t->info.st_size != size) return false;
    struct buffer now = {0};
    bool same = size <= INPUT_MAX && !read_whole(t->file, size, &now) && now.size == size &&
                crc_more(0, now.data, now.size) == crc;
    buffer_free(&now);
    return same;
}

static int change(struct target *t, const struct change *c) {
    enum place place;
    int told = target_change(t, c, &place);
    if (told >= 0) return told;
    struct stat now = {.st_mode = target_mode(t, c), .st_size = (off_t)c->size};
    int fd = openat(t->folder, t->name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0) fstat(fd, &now);
    struct buffer reply = {0};
    put_u8(&reply, REPLY_DONE);
    put_where(&reply, fd);
    put_u8(&reply, t->exists);
    put_u8(&reply, (uint8_t)place);
    put_u32(&reply, now.st_mode & 07777);
    put_u32(&reply, t->exists ? t->info.st_mode & 07777 : 0);
    put_u64(&reply, (uint64_t)now.st_size);
    if (fd >= 0) close(fd);
    return reply_send(&reply);
}

int file_write(char **argv) {
    struct buffer data = {0};
    struct target t;
    if (!read_input(strtoull(argv[0], NULL, 10), &data) || !target_find(argv[4], true, &t)) return 0;
    struct change c = {data.data, data.size, !strcmp(argv[3], "append"), -1};
    if (strcmp(argv[2], "-")) c.mode = (int)(strtoul(argv[2], NULL, 8) & 0777);
    int code = is_expected(&t, argv[1]) ? change(&t, &c) : refuse(REFUSED_CHANGED, 0, "");
    target_close(&t);
    return code;
}
