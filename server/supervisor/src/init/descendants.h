/* Who lives below a process, or below all of them. */
#ifndef INIT_DESCENDANTS_H
#define INIT_DESCENDANTS_H

#include "init/supervisor.h"

/* Whether an entry of the last look belongs to the tree of `p`, or to any tree (NULL). */
bool descends_from(const struct process *p, const struct entry *e);
/* Look at who lives now; `visit` (or NULL) as in tree_scan. False: the look failed. */
bool descendants_look(struct supervisor *s, tree_visitor *visit, void *context);
/* How many of the last look's entries are alive below `p`, or below anybody (NULL). */
uint32_t descendants_alive(const struct supervisor *s, const struct process *p);
/* The same after a new look. */
uint32_t descendants_count(struct supervisor *s, const struct process *p);

#endif
