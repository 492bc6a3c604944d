#include "init/ipc.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/types.h>
#include <unistd.h>

enum { LINE_MAX_SIZE = 512 };

struct segment {
    int id;
    unsigned long attached;
    uid_t owner;
};

/* The columns of /proc/sysvipc/shm, which shows segments whatever their mode is: key, id, mode, size, pids of who made
   it and of who was the last to use it, how many are attached, owner. */
enum { ID = 1, ATTACHED = 6, OWNER = 7, COLUMNS };

/* Reads one line of it; returns false for its heading. */
static bool parse(const char *line, struct segment *seg) {
    unsigned long numbers[COLUMNS];
    for (int i = 0; i < COLUMNS; i++) {
        char *end;
        numbers[i] = strtoul(line, &end, 10);
        if (end == line) return false;
        line = end;
    }
    *seg = (struct segment){(int)numbers[ID], numbers[ATTACHED], (uid_t)numbers[OWNER]};
    return true;
}

/* Only its owner may remove a segment, and PID 1 is root without the privilege to do so for others. */
static void remove_as_owner(const struct segment *seg) {
    uid_t own = geteuid();
    if (seteuid(seg->owner)) return;
    shmctl(seg->id, IPC_RMID, NULL);
    if (seteuid(own)) _exit(1); /* the saved user is still ours, so this cannot fail */
    prctl(PR_SET_DUMPABLE, 0);  /* a change of user resets it to what the host says */
}

void ipc_free_unattached(void) {
    struct shm_info info;
    char line[LINE_MAX_SIZE];
    struct segment seg;
    /* This comes after nearly every command, and nearly none has made a segment: one system call says so. */
    if (shmctl(0, SHM_INFO, (struct shmid_ds *)(void *)&info) < 0 || !info.used_ids) return;
    FILE *list = fopen("/proc/sysvipc/shm", "re");
    if (!list) return;
    while (fgets(line, sizeof line, list))
        if (parse(line, &seg) && !seg.attached) remove_as_owner(&seg);
    fclose(list);
}
