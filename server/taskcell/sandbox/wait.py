"""How long a call waits for its command, and how the wait ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import Enum

import anyio

from taskcell.model import Command
from taskcell.process.process import Process
from taskcell.sandbox.spawn import GRACE
from taskcell.supervisor.channel import ANSWER_TIMEOUT

#: Seconds beyond the grace that the supervisor may take to stop, kill and count.
KILL_SLACK = 4.0
#: Seconds beyond a command's timeout after which a supervisor that has not reported its end counts as dead.
DEADLINE_SLACK = GRACE + KILL_SLACK + 5.0


class Waited(Enum):
    """How a call's wait for its command ended."""

    ENDED = "the command has ended"
    RUNNING = "the call waits no longer, and the command goes on"
    SILENT = "the supervisor has not reported what it must have reported by now"


async def wait_for(process: Process, command: Command) -> Waited:
    """Wait for a command's end as long as its call does. Raises SpawnFailed, SandboxLost.

    `process.patience.cancel()` has the call wait no longer, as when the server ends and leaves the command to the next.
    """
    limit = command.timeout + DEADLINE_SLACK
    wait = 0.0 if command.background else limit if command.wait is None else command.wait
    hands_off = command.background or wait < command.timeout
    has_ended = False
    with process.patience:
        has_ended = await within(process, process.finished, wait if hands_off else limit, still=not hands_off)
    is_released = process.patience.cancelled_caught
    if process.has_ended or (has_ended and not is_released):
        return Waited.ENDED
    if not hands_off and not is_released:
        return Waited.SILENT
    # Whether it could be started at all is known by now, or in a moment.
    if not await within(process, process.running, ANSWER_TIMEOUT):
        return Waited.SILENT
    return Waited.ENDED if process.has_ended else Waited.RUNNING


async def within(
    process: Process, wait: Callable[[], Awaitable[object]], seconds: float, *, still: bool = True
) -> bool:
    """Wait for what the supervisor reports at most so many seconds; returns whether it came.

    Arguments:
        still: while the sandbox is away, wait for it, and then for what it has to say.
    """
    while True:
        with anyio.move_on_after(seconds) as bound:
            await wait()
        if not (bound.cancelled_caught and still and process.is_away):
            return not bound.cancelled_caught
        await process.back()
        seconds = ANSWER_TIMEOUT
