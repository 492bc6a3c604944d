/* What the cgroup of the container says about memory. */
#ifndef INIT_CGROUP_H
#define INIT_CGROUP_H

#include <stdint.h>

/* How often the kernel has killed for want of memory so far; 0 where it does not tell. */
uint32_t oom_kills(void);
/* The memory limit in bytes; UINT64_MAX where there is none, or none that can be seen. */
uint64_t memory_limit(void);

#endif
