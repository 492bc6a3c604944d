#include "start/user.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum {
    DATABASE_MAX = 1 << 20, /* bytes: we do not trust the size of the image's files */
    FIELDS_MAX = 7,
    WORDS_MAX = 64, /* bytes of a `user` that is remembered */
    SETTLED_S = 1,  /* the coarsest file systems count time in seconds */
};

/* The open does not block: the path could be a FIFO. */
char *database_read(const char *path) {
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) return NULL;
    char *text = malloc(DATABASE_MAX + 1);
    size_t size = 0;
    ssize_t count = 1;
    while (text && size < DATABASE_MAX && (count = read(fd, text + size, DATABASE_MAX - size)) != 0) {
        if (count > 0) size += (size_t)count;
        else if (errno != EINTR) break;
    }
    close(fd);
    if (text) text[size] = 0;
    return text;
}

static bool parse_id(const char *text, uint32_t *id) {
    char *end;
    if (*text < '0' || *text > '9') return false;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    /* To the kernel, the highest number means "no change". */
    if (*end || errno || value >= UINT32_MAX) return false;
    *id = (uint32_t)value;
    return true;
}

/* Splits the next line of `at` at its colons; returns the number of fields, or 0 at the end. */
static size_t next_line(char **at, char *fields[FIELDS_MAX]) {
    if (!**at) return 0;
    char *line = *at, *end = strchr(line, '\n');
    *at = end ? end + 1 : line + strlen(line);
    if (end) *end = 0;
    size_t count = 0;
    for (fields[count++] = line; count < FIELDS_MAX && (line = strchr(line, ':')); fields[count++] = line) *line++ = 0;
    return count;
}

/* Finds a name or a number in a file of "name:x:id:…" lines; returns the number of the line's fields, or 0. */
static size_t find_line(char *text, const char *word, char *fields[FIELDS_MAX]) {
    uint32_t id, other;
    bool numeric = parse_id(word, &id);
    size_t count;
    while ((count = next_line(&text, fields))) {
        if (count < 3 || !parse_id(fields[2], &other)) continue;
        if (numeric ? other == id : !strcmp(fields[0], word)) return count;
    }
    return 0;
}

static bool is_member(char *list, const char *name) {
    for (char *rest = list, *member; (member = strsep(&rest, ","));)
        if (!strcmp(member, name)) return true;
    return false;
}

static void find_groups(struct identity *who, const char *name) {
    char *text = database_read("/etc/group"), *at = text, *fields[FIELDS_MAX];
    size_t count;
    uint32_t gid;
    while (at && who->group_count < GROUPS_MAX && (count = next_line(&at, fields))) {
        if (count < 4 || !parse_id(fields[2], &gid) || gid == who->gid || !is_member(fields[3], name)) continue;
        who->groups[who->group_count++] = gid;
    }
    free(text);
}

static const char *resolve_group(const char *word, struct identity *who) {
    if (parse_id(word, &who->gid)) return NULL;
    char *text = database_read("/etc/group"), *fields[FIELDS_MAX];
    bool found = text && find_line(text, word, fields) && parse_id(fields[2], &who->gid);
    free(text);
    return found ? NULL : "there is no such group";
}

/* `group` is NULL when only a user was named, whose own groups count then. */
static const char *resolve(const char *user, const char *group, struct identity *who) {
    char *text = database_read("/etc/passwd"), *fields[FIELDS_MAX];
    size_t count = text ? find_line(text, user, fields) : 0;
    const char *fault = NULL;
    bool known = count >= 4 && parse_id(fields[2], &who->uid) && parse_id(fields[3], &who->gid);
    if (!known && !parse_id(user, &who->uid)) fault = "there is no such user";
    /* A user that is not listed gets a group of the same number, and never root's. */
    if (!fault && !known) who->gid = who->uid;
    if (!fault && group) fault = resolve_group(group, who);
    who->groups[who->group_count++] = who->gid;
    if (!fault && known && !group) find_groups(who, fields[0]);
    free(text);
    return fault;
}

bool user_name(uid_t uid, char *name, size_t size) {
    char *text = database_read("/etc/passwd"), *at = text, *fields[FIELDS_MAX];
    size_t count;
    uint32_t other;
    bool found = false;
    while (at && !found && (count = next_line(&at, fields)))
        found = count >= 3 && parse_id(fields[2], &other) && other == uid && *fields[0] && strlen(fields[0]) < size;
    if (found) memcpy(name, fields[0], strlen(fields[0]) + 1);
    free(text);
    return found;
}

static const char *find_identity(const char *words, struct identity *who) {
    *who = (struct identity){.change = true};
    char *user = strdup(words);
    if (!user) return "there is no memory left";
    char *group = strchr(user, ':');
    if (group) *group++ = 0;
    bool empty = !*user || (group && !*group);
    const char *fault = empty ? "a user is 'uid', 'uid:gid' or names" : resolve(user, group, who);
    free(user);
    if (fault || user_can_change()) return fault;
    bool same = who->uid == geteuid() && (who->gid == getegid() || !group);
    who->change = false;
    return same ? NULL : "the supervisor may not change its user";
}

/* The state of the files when they were read, and what they said. */
static struct {
    char words[WORDS_MAX];
    struct stat files[2];
    struct identity who;
} last;

static void look(struct stat files[2]) {
    static const char *const paths[] = {"/etc/passwd", "/etc/group"};
    for (int i = 0; i < 2; i++)
        if (stat(paths[i], &files[i])) files[i] = (struct stat){0};
}

static bool same_time(struct timespec a, struct timespec b) { return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec; }

static bool is_same(const struct stat *a, const struct stat *b) {
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           same_time(a->st_mtim, b->st_mtim) && same_time(a->st_ctim, b->st_ctim);
}

/* Nearly every command has the same user, and nobody has changed the files: a stat of them is enough. */
static bool is_known(const char *words, const struct stat files[2]) {
    return !strcmp(words, last.words) && is_same(&files[0], &last.files[0]) && is_same(&files[1], &last.files[1]);
}

/* A file that changed just before its stat may have changed again within the grain of its time stamp. */
static bool is_settled(const struct stat *file, time_t looked) { return looked - file->st_ctim.tv_sec > SETTLED_S; }

static void remember(const char *words, const struct stat files[2], time_t looked, const struct identity *who) {
    if (strlen(words) >= sizeof last.words || !is_settled(&files[0], looked) || !is_settled(&files[1], looked)) return;
    strcpy(last.words, words);
    memcpy(last.files, files, sizeof last.files);
    last.who = *who;
}

const char *user_resolve(const char *words, struct identity *who) {
    struct stat files[2];
    if (!*words) {
        *who = (struct identity){.uid = geteuid(), .gid = getegid()};
        return NULL;
    }
    time_t looked = time(NULL);
    look(files);
    if (is_known(words, files)) {
        *who = last.who;
        return NULL;
    }
    const char *fault = find_identity(words, who);
    if (!fault) remember(words, files, looked, who);
    return fault;
}

bool user_can_change(void) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {{0}};
    if (syscall(SYS_capget, &header, data)) return false;
    uint32_t needed = 1U << CAP_SETUID | 1U << CAP_SETGID;
    return (data[0].effective & needed) == needed;
}
