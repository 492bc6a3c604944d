/* What the container's cgroup says about memory and processes. */
#ifndef INIT_CGROUP_H
#define INIT_CGROUP_H

#include <stdint.h>

/* Returns how many processes the kernel has killed for want of memory, or 0 when it does not say. */
uint32_t oom_kills(void);
/* Returns how many processes and threads the limit on their number has kept from starting, or 0 as above. */
uint32_t refused_forks(void);
/* Returns the memory limit in bytes, or UINT64_MAX when there is none or none that can be seen. */
uint64_t memory_limit(void);

#endif
