"""Commands that are to be killed at their timeout, on a machine that may take seconds to start them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

Result = TypeVar("Result")

#: Seconds: enough for a shell to begin on an idle machine, on a busy one, and on one with fifty programs for each core.
TIMEOUTS = (0.5, 4.0, 30.0)


async def timed_out(run: Callable[[float], Awaitable[Result]], has_begun: Callable[[Result], bool]) -> Result:
    """Return what a command returns that reached its timeout after it had begun; a busy machine gets a longer one.

    Arguments:
        run: runs the command with a timeout in seconds.
        has_begun: whether a result shows that the command got as far as the test wants.
    """
    for timeout in TIMEOUTS[:-1]:
        result = await run(timeout)
        if has_begun(result):
            return result
    return await run(TIMEOUTS[-1])
