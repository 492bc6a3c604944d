"""A sandbox that a task was just given for its next call, while other tasks wait for a place."""

from __future__ import annotations

from contextlib import ExitStack

import anyio

from taskcell.model import TaskKey
from taskcell.pool.pool import Pool
from taskcell.sandbox.sandbox import Sandbox

#: Seconds in which a program that opened a task sends its first command. Without them the sandbox, which is idle until
#: then, would be closed for the next task in the queue, and made again: each task would cost two.
RESERVED = 1.0


def reserve(pool: Pool, task: TaskKey, sandbox: Sandbox) -> None:
    """Keep a sandbox from being closed to make room, for RESERVED, if somebody waits for room."""
    if pool.slots.waiting:
        held = ExitStack()
        held.enter_context(pool.holding(task, sandbox))  # now: the caller's own lease may end before a task begins
        pool.group.start_soon(_release, held)


async def _release(held: ExitStack) -> None:
    with held:
        await anyio.sleep(RESERVED)
