#include "init/descendants.h"

#include "base/tree.h"
#include "init/table.h"

bool descends_from(const struct process *p, const struct entry *e) {
    if (e->owner == OWNER_NONE) return false;
    return !p || e->owner == (p->leader ? p->leader : OWNER_ORPHAN);
}

bool descendants_look(struct supervisor *s, tree_visitor *visit, void *context) {
    struct family f = {.self = s->self};
    f.leader_count = table_leaders(s, &f.leaders);
    return tree_scan(&s->scan, &f, visit, context);
}

uint32_t descendants_alive(const struct supervisor *s, const struct process *p) {
    uint32_t count = 0;
    for (size_t i = 0; i < s->scan.count; i++)
        count += descends_from(p, &s->scan.entries[i]) && !entry_dead(&s->scan.entries[i]);
    return count;
}

uint32_t descendants_count(struct supervisor *s, const struct process *p) {
    return descendants_look(s, NULL, NULL) ? descendants_alive(s, p) : 0;
}
