"""Closes a task of any principal, for the operator, or because its lifetime is over."""

from __future__ import annotations

import anyio.to_thread

from taskcell.gateway.gateway import Gateway
from taskcell.model import TaskKey

REMOVED = (
    "The person who runs the server closed the task's sandbox (`taskcell rm`); this is a fresh one, and the files that "
    "were in the workspace are {}."
)


EXPIRED = (
    "The task's lifetime was over, so it was closed; this is a fresh sandbox, and the files that were in the workspace "
    "are {}."
)


async def remove_task(gateway: Gateway, task: TaskKey, *, purge: bool, why: str = REMOVED) -> int:
    """Close a task; return how many sandboxes it had. The task's next answer says so.

    Raises what `Pool.close_task` raises, and AuditFailed.

    Arguments:
        purge: the caller deletes its persistent workspace afterwards.
        why: REMOVED or EXPIRED.
    """
    pool = gateway.pool
    gateway.trail.removed(task, "remove" if why is REMOVED else "expire")
    had_begun = await pool.has_begun(task)
    await anyio.to_thread.run_sync(gateway.environments.forget, task)
    count = await pool.close_task(task)
    gateway.file_history.forget(task)
    if had_begun:
        files = "still there" if pool.keeps_files and not purge else "lost"
        pool.slots.endings.tell(task, why.format(files))
    return count
