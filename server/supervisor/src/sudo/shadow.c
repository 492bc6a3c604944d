#include "sudo/shadow.h"

#include <crypt.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "start/user.h"

#ifdef __GLIBC__
static const char *hash_of(const char *password, const char *setting) { return crypt(password, setting); }
#else
/* crypt(3) of musl would link every scheme with its tables, 50 kB of them. */
extern char *__crypt_sha512(const char *password, const char *setting, char *hash);

static const char *hash_of(const char *password, const char *setting) {
    static char hash[128];
    return __crypt_sha512(password, setting, hash);
}
#endif

static const char PATH[] = "/etc/shadow";

enum { SALT = 16, NAME_MAX_SIZE = 64 };

/* Returns a hash that every PAM knows, SHA-512 with a random salt, or NULL when none could be made. */
static const char *make_hash(const char *password) {
    static const char letters[] = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    unsigned char random[SALT];
    char setting[3 + SALT + 2] = "$6$";
    if (getrandom(random, sizeof random, 0) != sizeof random) return NULL;
    for (size_t i = 0; i < SALT; i++) setting[3 + i] = letters[random[i] % 64];
    setting[3 + SALT] = '$';
    const char *hash = hash_of(password, setting);
    return hash && *hash == '$' ? hash : NULL;
}

/* Writes the text with the user's second field replaced; a user who has no line gets one. */
static void put_text(struct buffer *out, const char *text, const char *name, const char *hash) {
    size_t length = strlen(name);
    bool found = false;
    while (*text) {
        const char *end = strchrnul(text, '\n'), *rest = NULL;
        if (!found && !strncmp(text, name, length) && text[length] == ':') rest = strpbrk(text + length + 1, ":\n");
        if (rest && *rest == ':') {
            put_bytes(out, text, length + 1);
            put_bytes(out, hash, strlen(hash));
            text = rest;
            found = true;
        }
        put_bytes(out, text, (size_t)(end - text));
        put_u8(out, '\n');
        text = *end ? end + 1 : end;
    }
    if (found) return;
    put_bytes(out, name, length);
    put_u8(out, ':');
    put_bytes(out, hash, strlen(hash));
    put_bytes(out, ":::::::\n", 8);
}

/* Writes in place: the file keeps its owner and group, and nobody else runs yet who could read half of it. */
static bool write_all(const struct buffer *data) {
    int fd = open(PATH, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return false;
    size_t done = 0;
    ssize_t count = 0;
    while (done < data->size && (count = write(fd, data->data + done, data->size - done)) > 0) done += (size_t)count;
    bool written = done == data->size && ftruncate(fd, (off_t)done) == 0;
    return close(fd) == 0 && written;
}

const char *shadow_set(uid_t uid, const char *password) {
    char name[NAME_MAX_SIZE];
    struct stat info;
    if (!user_name(uid, name, sizeof name)) return "the image's /etc/passwd does not name the user of the profile";
    if (lstat(PATH, &info) || !S_ISREG(info.st_mode)) return "the image has no /etc/shadow to set a password in";
    /* Some distributions give the file no permissions, and without capabilities root is bound by that too. */
    bool closed = (info.st_mode & 0600) != 0600;
    if (closed) chmod(PATH, 0600);
    char *text = database_read(PATH);
    const char *hash = text && (off_t)strlen(text) == info.st_size ? make_hash(password) : NULL;
    struct buffer out = {0};
    if (hash) put_text(&out, text, name, hash);
    bool written = hash && !out.failed && write_all(&out);
    if (closed) chmod(PATH, info.st_mode & 07777);
    buffer_free(&out);
    free(text);
    return written ? NULL : "the password could not be set in /etc/shadow";
}
