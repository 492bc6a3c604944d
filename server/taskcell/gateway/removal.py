"""Closes a task of any principal, for the operator."""

from __future__ import annotations

import anyio.to_thread

from taskcell.gateway.gateway import Gateway
from taskcell.model import TaskKey

REMOVED = (
    "The person who runs the server closed the task's sandbox (`taskcell rm`); this is a fresh one, and the files that "
    "were in the workspace are {}."
)


async def remove_task(gateway: Gateway, task: TaskKey, *, purge: bool) -> int:
    """Close a task; return how many sandboxes it had. The task's next answer says so.

    Raises what `Pool.close_task` raises, and AuditFailed.

    Arguments:
        purge: the caller deletes its persistent workspace afterwards.
    """
    pool = gateway.pool
    gateway.trail.removed(task)
    await anyio.to_thread.run_sync(gateway.environments.forget, task)
    count = await pool.close_task(task)
    gateway.file_history.forget(task)
    if count:
        files = "still there" if pool.keeps_files and not purge else "lost"
        pool.slots.endings.tell(task, REMOVED.format(files))
    return count
