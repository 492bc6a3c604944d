"""A sandbox that a task was just given for its next call, while other tasks wait for a place."""

from __future__ import annotations

from contextlib import ExitStack

import anyio

from taskcell.model import TaskKey
from taskcell.pool.pool import Pool
from taskcell.sandbox.sandbox import Sandbox

#: Seconds in which a program that opened a task sends its first command, on a machine that is busy with making others.
#: Without them the sandbox, which is idle until then, would be closed for the next task in the queue, and made again:
#: each task would cost two.
RESERVED = 10.0


def reserve(pool: Pool, task: TaskKey, sandbox: Sandbox) -> None:
    """Keep a sandbox from being closed to make room until its task's next call, for RESERVED at most, if somebody waits
    for room."""
    slot = next((one for one in pool.slots if one.sandbox is sandbox), None)
    if slot is not None and pool.slots.waiting:
        slot.reservation.enter_context(pool.holding(task, sandbox))  # now: the caller's own lease may end before
        pool.group.start_soon(_end, slot.reservation)


async def _end(reservation: ExitStack) -> None:
    with reservation:
        await anyio.sleep(RESERVED)
