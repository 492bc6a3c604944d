#include "transfer/send.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "file/reply.h"
#include "transfer/beneath.h"
#include "transfer/outlet.h"
#include "transfer/pack.h"

/* The answer's head: what it is, its size, when it changed, its permissions. */
static bool send_head(const struct stat *info) {
    struct buffer head = {0};
    put_u8(&head, REPLY_DONE);
    put_u8(&head, S_ISDIR(info->st_mode) ? 'd' : 'f');
    put_u64(&head, (uint64_t)info->st_size);
    put_u64(&head, (uint64_t)info->st_mtime);
    put_u32(&head, info->st_mode & 07777);
    bool sent = !head.failed && outlet_write(head.data, head.size);
    buffer_free(&head);
    return sent;
}

static int answer(int fd, const struct stat *info, char **argv) {
    bool tar = !strcmp(argv[0], "tar") || S_ISDIR(info->st_mode);
    if (!strcmp(argv[0], "look")) return send_head(info) && outlet_flush() ? 0 : 1;
    const char *large = argv[4];
    uint64_t offset = strtoull(argv[1], NULL, 10), most = strtoull(argv[2], NULL, 10);
    uint64_t left = offset < (uint64_t)info->st_size ? (uint64_t)info->st_size - offset : 0;
    if (left > most) left = most;
    if (!send_head(info)) return 1;
    if (tar) return pack(fd, argv[3]) ? 0 : 1;
    if (large && left > strtoull(large, NULL, 10)) left = 0; /* the server fetches it by another way */
    return outlet_file(fd, offset, left) && outlet_flush() ? 0 : 1;
}

int transfer_send(char **argv) {
    struct stat info;
    /* Examined before it is opened: opening a device or a FIFO may have an effect, or block. */
    int root = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    int found = root < 0 ? -1 : open_beneath(root, argv[3], O_PATH);
    if (found < 0 || fstat(found, &info)) return refuse_path("");
    if (!S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode)) return refuse_mode(info.st_mode);
    char name[64];
    snprintf(name, sizeof name, "/proc/self/fd/%d", found);
    int fd = open(name, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    return fd < 0 ? refuse_system("") : answer(fd, &info, argv);
}
