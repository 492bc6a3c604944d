"""A bound for what a sandbox's sockets hold on cgroup v1, whose memory limit does not count it.

No engine sets it: runc ignores `KernelMemoryTCP` since 1.0, and the parent's bound does not reach the containers below.
So the server writes it, where it may.
"""

from __future__ import annotations

import os
from pathlib import Path

#: Where cgroup v1 has its files about memory on every distribution.
_ROOT = Path("/sys/fs/cgroup/memory")
_LIMIT = "memory.kmem.tcp.limit_in_bytes"
#: Of the memory limit, on top of it: 256 MB with the default 2 GB, where 150 idle connections that nobody read from
#: were seen to hold 1.8 GB. Connections go on at the bound, with smaller buffers.
SHARE = 8
WEAKNESS = (
    "The engine uses cgroup v1 and this server may not write to its cgroups, so the memory limit of a sandbox does not "
    "count its sockets, 12 MB for each connection; use cgroup v2, or run the server as root on the engine's machine."
)


def can_bound() -> bool:
    """Whether this process may set the bound for containers on this machine."""
    return os.access(_ROOT / _LIMIT, os.W_OK)


def bound(container_id: str, pid: int, memory: int | None) -> None:
    """Bound the sockets of a container that runs nothing of anybody's yet; where that cannot be, nothing happens.

    Arguments:
        pid: of its first process, on this machine. An engine in a virtual machine names one of its own.
        memory: bytes of its memory limit; None: it has none, and its sockets get none.
    """
    if memory is None:
        return
    try:
        cgroups = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8")
        for line in cgroups.splitlines():
            _, controllers, path = line.split(":", 2)
            if "memory" in controllers.split(",") and container_id in path:
                (_ROOT / path.lstrip("/") / _LIMIT).write_text(str(memory // SHARE), encoding="ascii")
    except OSError:
        return
