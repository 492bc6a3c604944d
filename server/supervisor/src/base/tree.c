#include "base/tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

static bool read_entry(int proc, const char *name, struct entry *e) {
    char path[32], text[STAT_MAX];
    if (snprintf(path, sizeof path, "%s/stat", name) >= (int)sizeof path) return false;
    int fd = openat(proc, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    ssize_t size = read(fd, text, sizeof text - 1);
    close(fd);
    if (size <= 0) return false;
    text[size] = 0;
    e->pid = (pid_t)atoi(name);
    e->owner = OWNER_UNKNOWN;
    return parse_stat(text, e);
}

static bool add_entry(struct scan *scan, const struct entry *e) {
    if (scan->count == scan->room) {
        size_t room = scan->room ? scan->room * 2 : ENTRIES_FIRST;
        struct entry *entries = realloc(scan->entries, room * sizeof *entries);
        if (!entries) return false;
        scan->entries = entries;
        scan->room = room;
    }
    scan->entries[scan->count++] = *e;
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
    bool is_top = e->parent == f->self;
    for (size_t steps = 0; e->parent != f->self; steps++) {
        /* Pids change hands while we read, so a snapshot could even hold a circle. */
        if (e->parent == 0 || e->pid == f->self || steps > scan->count) return OWNER_NONE;
        const struct entry *parent = tree_find(scan, e->parent);
        if (!parent) return OWNER_UNKNOWN;
        if (parent->owner > OWNER_NONE || parent->owner == OWNER_ORPHAN) return parent->owner;
        e = parent;
    }
    if (!contains(f->leaders, f->leader_count, e->pid)) return OWNER_ORPHAN;
    return is_top ? OWNER_NONE : e->pid;
}

static bool read_all(struct scan *scan, const struct family *f, tree_visitor *visit, void *context) {
    struct dirent *name;
    DIR *proc = opendir("/proc");
    bool sorted = true, room = true;
    while (proc && room && (name = readdir(proc))) {
        struct entry e;
        if (name->d_name[0] < '1' || name->d_name[0] > '9' || !read_entry(dirfd(proc), name->d_name, &e)) continue;
        if (scan->count && scan->entries[scan->count - 1].pid > e.pid) sorted = false;
        /* Most parents have lower pids, so the table has them already. */
        if (sorted) e.owner = find_owner(scan, &e, f);
        room = add_entry(scan, &e);
        if (room && visit && e.owner != OWNER_NONE && e.owner != OWNER_UNKNOWN) visit(&e, context);
    }
    if (proc) closedir(proc);
    if (!sorted) qsort(scan->entries, scan->count, sizeof *scan->entries, by_pid);
    return proc && room;
}

bool tree_scan(struct scan *scan, const struct family *f, tree_visitor *visit, void *context) {
    scan->count = 0;
    scan->torn = false;
    bool done = read_all(scan, f, visit, context);
    for (size_t i = 0; done && i < scan->count; i++) {
        struct entry *e = &scan->entries[i];
        if (e->owner == OWNER_UNKNOWN) e->owner = find_owner(scan, e, f);
        if (e->owner != OWNER_UNKNOWN) continue;
        scan->torn = true;
        e->owner = OWNER_NONE;
    }
    return done;
}

void tree_free(struct scan *scan) {
    free(scan->entries);
    *scan = (struct scan){0};
}
