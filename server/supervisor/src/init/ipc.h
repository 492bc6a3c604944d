/* System V shared memory, which outlives the processes that made it. */
#ifndef INIT_IPC_H
#define INIT_IPC_H

/* Removes every segment that no process is attached to. Only for when nothing runs in the sandbox: then nobody can hold
   the id of one any more. The IPC namespace must be the sandbox's own. */
void ipc_free_unattached(void);

#endif
