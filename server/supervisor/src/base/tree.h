/* Who descends from whom: one look at /proc. */
#ifndef BASE_TREE_H
#define BASE_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { OWNER_NONE = 0, OWNER_ORPHAN = -1, OWNER_UNKNOWN = -2 };

struct entry {
    pid_t pid, parent, group;
    char state;
    pid_t owner; /* the leader it descends from, OWNER_ORPHAN, or OWNER_NONE: a leader, or not ours at all */
};

struct scan {
    struct entry *entries; /* by pid */
    size_t count, room;
    bool torn; /* a parent vanished while we read: somebody may have been missed */
};

/* Whose descendants are looked for. */
struct family {
    pid_t self;
    const pid_t *leaders;
    size_t leader_count;
};

typedef void tree_visitor(const struct entry *e, void *context);

/* Look at every process and tell which child of `self` it descends from. `visit` (or NULL) gets most of the
   descendants at once, while others are still being read: who is to be stopped should not wait for the end of the
   look. False: /proc cannot be read. */
bool tree_scan(struct scan *scan, const struct family *family, tree_visitor *visit, void *context);
/* The entry of a pid, or NULL; works during a look too, over what has been read. */
struct entry *tree_find(const struct scan *scan, pid_t pid);
void tree_free(struct scan *scan);
static inline bool entry_dead(const struct entry *e) { return e->state == 'Z' || e->state == 'X' || e->state == 'x'; }
static inline bool entry_stopped(const struct entry *e) { return e->state == 'T' || e->state == 't'; }

#endif
