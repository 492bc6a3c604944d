/* The tree of processes: one scan of /proc tells who descends from whom. */
#ifndef BASE_TREE_H
#define BASE_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

enum { OWNER_NONE = 0, OWNER_ORPHAN = -1, OWNER_UNKNOWN = -2 };

struct entry {
    pid_t pid, parent, group;
    char state;
    long threads; /* that live; a zombie whose main thread alone has ended has others */
    pid_t owner; /* the leader above it, OWNER_ORPHAN, or OWNER_NONE: a leader, or not ours */
};

enum { NAMES_MAX = 256 }; /* bytes: some ten names of processes */

struct scan {
    int proc;  /* stays open, as does `spare`: a scan must not depend on what can be opened when it is needed */
    int spare; /* a descriptor that is given up for a scan when there is no other */
    /* Names of /proc that have not been read yet. They are few, for a process is to be read right after it is named:
       one that lives an instant is gone when hundreds of others were named before it. */
    _Alignas(uint64_t) char names[NAMES_MAX];
    size_t names_at, names_end;
    struct entry *entries; /* sorted by pid */
    size_t count, room;
    bool torn;    /* a parent vanished while we read, so the scan may have missed a descendant */
    bool slipped; /* a process ended between being listed and being read: we may have passed by what it left behind */
    bool failed;  /* something could not be read: what the scan does not show may be there all the same */
};

/* The supervisor or leader whose descendants a scan looks for, and the leaders among its children. */
struct family {
    pid_t self;
    const pid_t *leaders;
    size_t leader_count;
};

typedef void tree_visitor(const struct entry *e, void *context);

/* Opens and allocates what a scan needs. Returns false when that fails; each scan then tries again. */
bool tree_open(struct scan *scan);
/* Reads every process and finds the child of `self` that it descends from. `visit` (or NULL) is called for most
   descendants as soon as they are read: a process to be stopped should not run until the end of the scan. Returns
   false when the scan failed. */
bool tree_scan(struct scan *scan, const struct family *family, tree_visitor *visit, void *context);
/* Returns the entry of a pid, or NULL. During a scan it searches what has been read so far. */
struct entry *tree_find(const struct scan *scan, pid_t pid);
/* Returns whether a process that the last scan does not show is not there. */
static inline bool scan_is_whole(const struct scan *scan) {
    return !scan->torn && !scan->slipped && !scan->failed;
}
/* Returns whether no thread of the process lives. The state is that of its main thread, which the kernel counts too. */
static inline bool entry_dead(const struct entry *e) { return strchr("ZXx", e->state) && e->threads <= 1; }
static inline bool entry_stopped(const struct entry *e) { return e->state == 'T' || e->state == 't'; }

#endif
