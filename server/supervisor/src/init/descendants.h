/* The descendants of one process of the table, or of all of them, by a scan of /proc. */
#ifndef INIT_DESCENDANTS_H
#define INIT_DESCENDANTS_H

#include "init/supervisor.h"

/* Returns whether an entry of the last scan belongs to the tree of `p`, or to any tree (NULL). */
bool descends_from(const struct process *p, const struct entry *e);
/* Scans /proc; `visit` (or NULL) as in tree_scan. Returns false when the scan failed. */
bool descendants_look(struct supervisor *s, tree_visitor *visit, void *context);
/* Returns how many entries of the last scan are alive in the tree of `p`, or in any tree (NULL). What the scan missed
   is not among them. */
uint32_t descendants_seen(const struct supervisor *s, const struct process *p);
/* Returns how many processes are alive in that tree by a new scan, or COUNT_UNKNOWN. */
uint32_t descendants_count(struct supervisor *s, const struct process *p);
/* Sets `alive` of every process by a new scan: how many are alive in its tree, or COUNT_UNKNOWN. */
void descendants_recount(struct supervisor *s);

#endif
