"""Notices that the host's folder in which sandboxes work is not at its place any more."""

from __future__ import annotations

from collections.abc import Iterable

import anyio
import anyio.to_thread

from taskcell.host_folder import HostFolder
from taskcell.model import TaskKey
from taskcell.policy import host_paths
from taskcell.pool.slot import Slot

#: Seconds that a look at the folder may take, which takes microseconds on a disk.
FOLDER_TIMEOUT = 2.0
_MOVED = "the folder of the host that it worked in was moved or deleted"


async def doom_moved(slots: Iterable[Slot], task: TaskKey, folder: HostFolder | None) -> None:
    """Have sandboxes replaced whose folder was moved away or deleted: they would go on in it, where nobody looks.

    On a network file system that hangs, nothing is decided: the command will tell.
    """
    if folder is None:
        return
    with anyio.move_on_after(FOLDER_TIMEOUT):
        found = await anyio.to_thread.run_sync(host_paths.look, folder.path, abandon_on_cancel=True)
        for slot in slots:
            sandbox = slot.sandbox
            is_moved = sandbox is not None and sandbox.container.folder not in (None, found.identity)
            if slot.task == task and sandbox is not None and sandbox.usable and is_moved:
                sandbox.doom(_MOVED)
