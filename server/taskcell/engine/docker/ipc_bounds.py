"""The kernel settings by which an engine bounds a sandbox's System V IPC."""

from __future__ import annotations

from taskcell.model import Profile
from taskcell.units import MAX_IPC

#: Bytes of what System V IPC is counted in: a page of shared memory (where the kernel's are larger, so is the bound), a
#: queue that is full (kernel.msgmnb), a semaphore.
_PAGE, _QUEUE, _SEMAPHORE = 4096, 16384, 64


def ipc_settings(profile: Profile, *, maps_users: bool) -> dict[str, str] | None:
    """Bounds of System V IPC, as in `ipc_size`: it outlives who made it and counts as the sandbox's memory."""
    if maps_users or "ipc" in profile.host_namespaces:
        return None
    shm = min(profile.shm, MAX_IPC)
    return {
        "kernel.shmall": str(shm // _PAGE),
        "kernel.msgmni": str(shm // 4 // _QUEUE),
        # In one set, together, in one operation, sets: all but the second are the kernel's own.
        "kernel.sem": f"32000 {shm // 4 // _SEMAPHORE} 500 32000",
    }
