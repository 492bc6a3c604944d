#include "file/list.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "file/ignore.h"
#include "file/reply.h"

enum {
    PATTERNS_MAX = 32,
    PARTS_MAX = 62,       /* parts of one pattern: a set of them fits 64 bits */
    DEPTH_MAX = 100,      /* folders below one another: each holds a descriptor */
    VISITS_MAX = 1000000, /* names that are read: a second or two, some tens of MB */
    FOUND_MAX = 64 << 20, /* bytes of all entries that match */
    BYTES_MAX = 2 << 20,  /* bytes of the reply */
    LINK_MAX_SHOWN = 1024,
    MORE_MATCH = 1,       /* flags of the reply */
    NOT_ALL_SEEN = 2,
    CLOSED_FOLDERS = 4,
    IS_FILE = 8,
    LEFT_SHOWN = 10,      /* names that were left out; more are only counted */
};
static const int64_t LIST_LIMIT = 20000000; /* us; less than the server waits for the command */

/* A pattern, split at its slashes. The state of a match is a set of parts, one bit each: the parts that the next
   name may match. The bit after the last part means that the path matches. */
struct pattern {
    char *parts[PARTS_MAX];
    unsigned count;
};

/* An entry that matches: where it lies in the buffer, and when it changed (ns). */
struct match {
    size_t at, size;
    int64_t changed;
};

struct listing {
    struct pattern patterns[PATTERNS_MAX];
    unsigned pattern_count;
    bool ignore, cut;    /* leave out what is usually not wanted; more names were there than are read */
    uint64_t visits;
    int64_t end;
    uint8_t flags;
    char path[PATH_MAX]; /* of the current entry, relative to the folder */
    struct buffer entries, matches, left;
    uint32_t left_count;
};

static bool parse_pattern(char *text, struct pattern *p) {
    for (char *part; (part = strsep(&text, "/"));) {
        if (!*part) continue;
        if (p->count == PARTS_MAX) return false;
        p->parts[p->count++] = part;
    }
    return p->count > 0;
}

static bool is_any_depth(const char *part) { return !strcmp(part, "**"); }

/* `**` may match no folder at all, so the part after it is possible too. */
static uint64_t closed_over(const struct pattern *p, uint64_t states) {
    for (unsigned i = 0; i < p->count; i++)
        if (states >> i & 1 && is_any_depth(p->parts[i])) states |= (uint64_t)1 << (i + 1);
    return states;
}

/* The states below an entry. A link to a folder is followed where a part names it, and not by `**`: so it ends. */
static uint64_t step(const struct pattern *p, uint64_t states, const char *name, bool is_link) {
    uint64_t next = 0;
    for (unsigned i = 0; i < p->count; i++) {
        if (!(states >> i & 1)) continue;
        if (is_any_depth(p->parts[i])) next |= is_link ? 0 : (uint64_t)1 << i;
        else if (!fnmatch(p->parts[i], name, 0)) next |= (uint64_t)1 << (i + 1);
    }
    return closed_over(p, next);
}

/* Whether a pattern names an entry without any wildcard: then it is wanted, whatever is usually left out. */
static bool names_it(const struct pattern *p, uint64_t states, const char *name) {
    for (unsigned i = 0; i < p->count; i++)
        if (states >> i & 1 && !strcmp(p->parts[i], name)) return true;
    return false;
}

static char type_of(mode_t mode) { return S_ISREG(mode) ? 'f' : S_ISDIR(mode) ? 'd' : S_ISLNK(mode) ? 'l' : 'o'; }

static void add_entry(struct listing *l, int folder, const char *name, const char *path) {
    struct stat info;
    if (fstatat(folder, name, &info, AT_SYMLINK_NOFOLLOW)) return; /* it is gone by now */
    struct buffer *out = &l->entries;
    struct match match = {.at = out->size, .changed = info.st_mtim.tv_sec * 1000000000LL + info.st_mtim.tv_nsec};
    char target[LINK_MAX_SHOWN];
    ssize_t size = S_ISLNK(info.st_mode) ? readlinkat(folder, name, target, sizeof target) : 0;
    put_u8(out, (uint8_t)type_of(info.st_mode));
    put_u64(out, (uint64_t)info.st_size);
    put_u64(out, (uint64_t)info.st_mtim.tv_sec);
    put_str(out, path, strlen(path));
    put_str(out, target, size > 0 ? (size_t)size : 0);
    match.size = out->size - match.at;
    put_bytes(&l->matches, &match, sizeof match);
}

static bool is_over(struct listing *l) {
    if (l->entries.size > FOUND_MAX || l->entries.failed || l->matches.failed || clock_now() > l->end)
        l->flags |= NOT_ALL_SEEN;
    return l->flags & NOT_ALL_SEEN;
}

static void leave_out(struct listing *l, const char *name, bool is_folder) {
    if (l->left_count++ >= LEFT_SHOWN) return;
    put_bytes(&l->left, name, strlen(name));
    if (is_folder) put_u8(&l->left, '/');
    put_u8(&l->left, 0);
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* Returns the sorted names in an open folder, whose bytes `names` keeps, or NULL when memory runs out. */
static char **sorted_names(struct listing *l, DIR *folder, struct buffer *names, size_t *count) {
    *count = 0;
    for (struct dirent *entry; (entry = readdir(folder));) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        if (++l->visits > VISITS_MAX) {
            l->cut = true;
            break;
        }
        put_bytes(names, entry->d_name, strlen(entry->d_name) + 1);
        ++*count;
    }
    char **sorted = names->failed ? NULL : malloc((*count + 1) * sizeof *sorted);
    char *at = (char *)names->data;
    for (size_t i = 0; sorted && i < *count; i++, at += strlen(at) + 1) sorted[i] = at;
    if (sorted) qsort(sorted, *count, sizeof *sorted, by_name);
    return sorted;
}

static bool is_folder(int folder, const char *name, int flags) {
    struct stat info;
    return !fstatat(folder, name, &info, flags) && S_ISDIR(info.st_mode);
}

static bool is_link(int folder, const char *name) {
    struct stat info;
    return !fstatat(folder, name, &info, AT_SYMLINK_NOFOLLOW) && S_ISLNK(info.st_mode);
}

/* A folder that is being listed: its descriptor, where its names begin in the path, and what is left out in it. */
struct place {
    int fd;
    size_t length;
    unsigned depth;
    const struct ignore *rules;
};

static void walk(struct listing *l, struct place in, const uint64_t *states);

/* Takes one name of a folder: adds an entry if it matches, and descends if something below it may match. */
static void visit(struct listing *l, const struct place *in, const char *name, const uint64_t *states) {
    uint64_t next[PATTERNS_MAX];
    bool matches = false, below = false, named = false;
    size_t size = strlen(name);
    if (in->length + size + 2 > sizeof l->path) {
        l->flags |= NOT_ALL_SEEN;
        return;
    }
    memcpy(l->path + in->length, name, size + 1);
    bool link = is_link(in->fd, name);
    for (unsigned i = 0; i < l->pattern_count; i++) {
        uint64_t end = (uint64_t)1 << l->patterns[i].count;
        next[i] = step(&l->patterns[i], states[i], name, link);
        matches = matches || next[i] & end;
        below = below || next[i] & (end - 1);
        named = named || names_it(&l->patterns[i], states[i], name);
    }
    if (!matches && !below) return;
    bool folder = is_folder(in->fd, name, link && !below ? AT_SYMLINK_NOFOLLOW : 0);
    if (l->ignore && !named && ignore_has(in->rules, l->path, name, folder)) {
        if (matches || folder) leave_out(l, name, folder);
        return;
    }
    if (matches) add_entry(l, in->fd, name, l->path);
    if (!below || !folder) return;
    if (in->depth == DEPTH_MAX) {
        l->flags |= NOT_ALL_SEEN;
        return;
    }
    int fd = openat(in->fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | (link ? 0 : O_NOFOLLOW));
    if (fd < 0) l->flags |= CLOSED_FOLDERS;
    if (fd < 0) return;
    l->path[in->length + size] = '/';
    walk(l, (struct place){fd, in->length + size + 1, in->depth + 1, in->rules}, next);
}

/* Lists an open folder, and closes it. */
static void walk(struct listing *l, struct place in, const uint64_t *states) {
    struct buffer names = {0};
    size_t count = 0;
    struct ignore *own = l->ignore ? malloc(sizeof *own) : NULL;
    if (own) ignore_read(own, in.fd, in.rules, in.length, NULL);
    if (own && own->count) in.rules = own;
    DIR *folder = fdopendir(in.fd);
    char **sorted = folder ? sorted_names(l, folder, &names, &count) : NULL;
    if (!sorted) l->flags |= NOT_ALL_SEEN;
    for (size_t i = 0; sorted && i < count && !is_over(l); i++) visit(l, &in, sorted[i], states);
    if (l->cut) l->flags |= NOT_ALL_SEEN;
    free(sorted);
    buffer_free(&names);
    if (own) ignore_free(own);
    free(own);
    if (folder) closedir(folder);
    else close(in.fd);
}

static int by_time(const void *a, const void *b) {
    const struct match *one = a, *two = b;
    if (one->changed != two->changed) return one->changed < two->changed ? 1 : -1;
    return one->at < two->at ? -1 : 1;
}

static int send_listing(struct listing *l, size_t skip, size_t most, bool newest_first) {
    struct buffer page = {0}, reply = {0};
    struct match *matches = (struct match *)l->matches.data;
    size_t found = l->matches.size / sizeof *matches, shown = 0;
    if (newest_first && found) qsort(matches, found, sizeof *matches, by_time);
    for (size_t i = skip; i < found && shown < most && page.size < BYTES_MAX; i++, shown++)
        put_bytes(&page, l->entries.data + matches[i].at, matches[i].size);
    if (skip + shown < found) l->flags |= MORE_MATCH;
    put_u8(&reply, REPLY_DONE);
    put_u8(&reply, l->flags);
    put_u64(&reply, found);
    put_u32(&reply, l->left_count);
    put_str(&reply, l->left.data, l->left.size);
    put_u32(&reply, (uint32_t)shown);
    put_bytes(&reply, page.data, page.size);
    reply.failed = reply.failed || page.failed || l->entries.failed || l->matches.failed || l->left.failed;
    return reply_send(&reply);
}

int file_list(int argc, char **argv) {
    static struct listing l;
    uint64_t states[PATTERNS_MAX];
    size_t skip = strtoull(argv[0], NULL, 10), most = strtoull(argv[1], NULL, 10);
    bool newest_first = !strcmp(argv[2], "time");
    const char *path = argv[4];
    /* With UTF-8, `?` matches a character and not a byte. */
    setlocale(LC_CTYPE, "C.UTF-8");
    l.ignore = !strcmp(argv[3], "usual");
    l.end = clock_now() + LIST_LIMIT;
    for (int i = 5; i < argc; i++, l.pattern_count++) {
        struct pattern *p = &l.patterns[l.pattern_count];
        if (l.pattern_count == PATTERNS_MAX || !parse_pattern(argv[i], p)) return refuse(REFUSED_SIZE, 0, "");
        states[l.pattern_count] = closed_over(p, 1);
    }
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 && errno == ENOTDIR) {
        l.flags = IS_FILE;
        struct stat info;
        if (fstatat(AT_FDCWD, path, &info, AT_SYMLINK_NOFOLLOW)) return refuse_system("");
        add_entry(&l, AT_FDCWD, path, path);
        return send_listing(&l, 0, most, false);
    }
    if (fd < 0) return refuse_system("");
    walk(&l, (struct place){fd, 0, 0, l.ignore ? ignore_above(path) : NULL}, states);
    return send_listing(&l, skip, most, newest_first);
}
