#include "init/descendants.h"

#include "base/tree.h"
#include "init/limits.h"
#include "init/table.h"

enum { LOOKS = 5 }; /* a scan is not whole when a process ends during it, which seldom happens many times in a row */

bool descends_from(const struct process *p, const struct entry *e) {
    if (e->owner == OWNER_NONE) return false;
    return !p || e->owner == (p->leader ? p->leader : OWNER_ORPHAN);
}

bool descendants_look(struct supervisor *s, tree_visitor *visit, void *context) {
    struct family f = {.self = s->self};
    f.leader_count = table_leaders(s, &f.leaders);
    limits_restore(s);
    return tree_scan(&s->scan, &f, visit, context);
}

uint32_t descendants_seen(const struct supervisor *s, const struct process *p) {
    uint32_t count = 0;
    for (size_t i = 0; i < s->scan.count; i++)
        count += descends_from(p, &s->scan.entries[i]) && !entry_dead(&s->scan.entries[i]);
    return count;
}

uint32_t descendants_count(struct supervisor *s, const struct process *p) {
    for (int looks = 0; looks < LOOKS && descendants_look(s, NULL, NULL); looks++) {
        uint32_t seen = descendants_seen(s, p);
        if (seen || scan_is_whole(&s->scan)) return seen;
    }
    return COUNT_UNKNOWN;
}

void descendants_recount(struct supervisor *s) {
    bool looked = true, whole = false;
    for (int looks = 0; looks < LOOKS && looked && !whole; looks++) {
        looked = descendants_look(s, NULL, NULL);
        whole = looked && scan_is_whole(&s->scan);
    }
    for (struct process *p = s->processes; p; p = p->next) {
        uint32_t seen = looked && p->state != STATE_GONE ? descendants_seen(s, p) : 0;
        p->alive = seen || whole || p->state == STATE_GONE ? seen : COUNT_UNKNOWN;
    }
}
