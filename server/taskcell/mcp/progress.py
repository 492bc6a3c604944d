"""MCP progress: sends the newest lines of a running command, in a task of its own.

A command's output never waits for a client: a slow client misses lines and gets newer ones instead.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import anyio
import structlog

from taskcell.errors import SandboxLost
from taskcell.process.process import Process, Totals
from taskcell.process.terminal_text import displayed
from taskcell.supervisor import protocol

log = structlog.get_logger(__name__)

#: Seconds between two messages: users are promised at most ten a second.
INTERVAL = 0.1
#: Bytes at the end of the output that are read, and the most of them that is shown.
LOOKED_AT = 2048
SHOWN_LINES = 3
SHOWN_CHARS = 400

T = TypeVar("T")
#: Called with the number of bytes of output so far, and the newest lines.
Notify = Callable[[float, str], Awaitable[None]]


class Progress:
    """Reports the progress of one process. Pass `watch` to the call that starts it."""

    def __init__(self, notify: Notify) -> None:
        self._notify = notify
        self._process: Process | None = None
        self._started = anyio.Event()

    def watch(self, process: Process) -> None:
        self._process = process
        self._started.set()

    async def report_while(self, call: Callable[[], Awaitable[T]]) -> T:
        """Await a call that raises nothing, and report its process meanwhile."""
        async with anyio.create_task_group() as reporting:
            reporting.start_soon(self._guarded)
            answer = await call()
            reporting.cancel_scope.cancel()
        return answer

    async def _guarded(self) -> None:
        """Report progress; no failure of that makes the call fail."""
        try:
            await self._report()
        except Exception:
            log.exception("Reporting the progress of a call failed.")

    async def _report(self) -> None:
        await self._started.wait()
        process = self._process
        assert process is not None
        reported: Totals = (0, 0)
        while not process.has_ended:
            # Sleep first: most commands end within this time.
            await anyio.sleep(INTERVAL)
            try:
                await process.news(reported)
                # Before reading, so that output that arrives meanwhile is reported the next time.
                seen = process.written
                newest = await newest_output(process)
            except SandboxLost:
                return
            if seen != reported:
                reported = seen
                with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):  # the client has gone
                    await self._notify(float(sum(reported)), newest)


async def newest_output(process: Process) -> str:
    """Return the last lines that a process has written, as plain text. Raises SandboxLost."""
    newest = b""
    for stream in protocol.Stream:
        found = await process.read(stream, protocol.FROM_THE_END, LOOKED_AT)
        newest = found.data or newest
    return newest_lines(newest)


def newest_lines(data: bytes) -> str:
    """Return the last lines of some output, as plain text."""
    text = displayed(data.decode("utf-8", "replace"), ansi=False)
    lines = [line for line in text.split("\n") if line.strip()]
    return "\n".join(lines[-SHOWN_LINES:])[-SHOWN_CHARS:]
