#include "base/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"

enum {
    STAT_MAX = 512, /* bytes: pid, a name of 64 bytes and the numbers up to THREADS stand well within it */
    /* The numbers after the state, as proc(5) lists them from its fourth field on. */
    PARENT = 0,
    GROUP = 1,
    THREADS = 16,
    NUMBERS,
    ENTRIES_FIRST = 512,
};

static const char *skip_number(const char *at, long *value) {
    char *end;
    *value = strtol(at, &end, 10);
    return end;
}

/* "pid (name) state parent group …": the name may hold anything, so it ends at the last parenthesis. */
static bool parse_stat(char *text, struct entry *e) {
    char *at = strrchr(text, ')');
    if (!at || at[1] != ' ' || !at[2]) return false;
    long numbers[NUMBERS];
    const char *number = at + 3;
    for (int i = 0; i < NUMBERS; i++) number = skip_number(number, &numbers[i]);
    e->state = at[2];
    e->parent = (pid_t)numbers[PARENT];
    e->group = (pid_t)numbers[GROUP];
    e->threads = numbers[THREADS];
    return true;
}

/* Opens a process's stat. When there is no descriptor left it gives up the spare one. */
static int open_stat(struct scan *scan, const char *name) {
    char path[32];
    snprintf(path, sizeof path, "%.16s/stat", name);
    int fd = openat(scan->proc, path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0 || (errno != EMFILE && errno != ENFILE) || scan->spare < 0) return fd;
    close_fd(&scan->spare);
    return openat(scan->proc, path, O_RDONLY | O_CLOEXEC);
}

/* Reads one process; returns false when there is nothing to read, and notes why. */
static bool read_entry(struct scan *scan, const char *name, struct entry *e) {
    char text[STAT_MAX];
    int fd = open_stat(scan, name);
    ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    int error = size < 0 ? errno : 0;
    close_fd(&fd);
    text[size > 0 ? size : 0] = 0;
    e->pid = (pid_t)atoi(name);
    e->owner = OWNER_UNKNOWN;
    if (parse_stat(text, e)) return true;
    /* A host may hide the processes of other users from all but root. */
    bool hidden = (error == EPERM || error == EACCES) && geteuid() != 0;
    if (size == 0 || error == ENOENT || error == ESRCH) scan->slipped = true;
    else if (!hidden) scan->failed = true;
    return false;
}

/* Grows the table; returns false when memory runs out. */
static bool make_room(struct scan *scan) {
    size_t room = scan->room ? scan->room * 2 : ENTRIES_FIRST;
    struct entry *entries = realloc(scan->entries, room * sizeof *entries);
    if (!entries) return false;
    scan->entries = entries;
    scan->room = room;
    return true;
}

static int by_pid(const void *a, const void *b) {
    const struct entry *x = a, *y = b;
    return (x->pid > y->pid) - (x->pid < y->pid);
}

struct entry *tree_find(const struct scan *scan, pid_t pid) {
    struct entry key = {.pid = pid};
    return bsearch(&key, scan->entries, scan->count, sizeof key, by_pid);
}

static bool contains(const pid_t *pids, size_t count, pid_t pid) {
    for (size_t i = 0; i < count; i++)
        if (pids[i] == pid) return true;
    return false;
}

/* Walks up to the child of `self` that an entry descends from. Returns OWNER_UNKNOWN when a parent is not in the
   table. */
static pid_t find_owner(const struct scan *scan, const struct entry *e, const struct family *f) {
    /* Pids change hands while we read, so a snapshot could even hold a circle. */
    for (size_t steps = 0; steps <= scan->count && e->parent != 0 && e->pid != f->self; steps++) {
        bool leads = contains(f->leaders, f->leader_count, e->pid);
        if (e->parent == f->self && !leads) return OWNER_ORPHAN;
        if (e->parent == f->self) return steps ? e->pid : OWNER_NONE;
        /* A child of a leader need not wait for the leader's own entry, which comes later when pids have begun anew. */
        if (contains(f->leaders, f->leader_count, e->parent)) return e->parent;
        const struct entry *parent = tree_find(scan, e->parent);
        if (!parent) return OWNER_UNKNOWN;
        if (parent->owner > OWNER_NONE || parent->owner == OWNER_ORPHAN) return parent->owner;
        e = parent;
    }
    return OWNER_NONE;
}

/* Returns the next name in /proc, or NULL at the end or when the scan has failed. */
static const char *next_name(struct scan *scan) {
    if (scan->names_at == scan->names_end) {
        /* readdir(3) would ask for as many names at once as its library likes: up to a thousand. */
        long size = syscall(SYS_getdents64, scan->proc, scan->names, sizeof scan->names);
        if (size < 0) scan->failed = true;
        if (size <= 0) return NULL;
        scan->names_at = 0;
        scan->names_end = (size_t)size;
    }
    const struct dirent *name = (const void *)&scan->names[scan->names_at];
    scan->names_at += name->d_reclen;
    return name->d_name;
}

static bool is_process(const char *name) { return name[0] >= '1' && name[0] <= '9'; }

static int open_proc(void) { return open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC); }

static bool rewind_proc(struct scan *scan) {
    if (scan->proc < 0) scan->proc = open_proc();
    scan->names_at = scan->names_end = 0;
    return scan->proc >= 0 && lseek(scan->proc, 0, SEEK_SET) == 0;
}

static void read_all(struct scan *scan, const struct family *f, tree_visitor *visit, void *context) {
    bool sorted = true;
    for (const char *name; (name = next_name(scan));) {
        struct entry e;
        if (!is_process(name) || !read_entry(scan, name, &e)) continue;
        if (scan->count == scan->room && !make_room(scan)) {
            scan->failed = true;
            break;
        }
        if (scan->count && scan->entries[scan->count - 1].pid > e.pid) sorted = false;
        /* Most parents have lower pids, so the table has them already. */
        if (sorted) e.owner = find_owner(scan, &e, f);
        scan->entries[scan->count++] = e;
        if (visit && e.owner != OWNER_NONE && e.owner != OWNER_UNKNOWN) visit(&e, context);
    }
    if (!sorted) qsort(scan->entries, scan->count, sizeof *scan->entries, by_pid);
}

static int open_spare(void) { return open("/dev/null", O_RDONLY | O_CLOEXEC); }

bool tree_open(struct scan *scan) {
    *scan = (struct scan){.proc = open_proc(), .spare = open_spare()};
    return make_room(scan) && scan->proc >= 0 && scan->spare >= 0;
}

bool tree_scan(struct scan *scan, const struct family *f, tree_visitor *visit, void *context) {
    scan->count = 0;
    scan->torn = scan->slipped = scan->failed = false;
    if (rewind_proc(scan)) read_all(scan, f, visit, context);
    for (size_t i = 0; i < scan->count; i++) {
        struct entry *e = &scan->entries[i];
        if (e->owner == OWNER_UNKNOWN) e->owner = find_owner(scan, e, f);
        if (e->owner != OWNER_UNKNOWN) continue;
        scan->torn = true;
        e->owner = OWNER_NONE;
    }
    if (scan->spare < 0) scan->spare = open_spare();
    /* Who looks is there: a /proc that does not show it is not the one of our processes. */
    if (!tree_find(scan, f->self)) scan->failed = true;
    return !scan->failed;
}
