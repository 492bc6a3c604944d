"""MCP progress: the newest lines of a command that runs, from a task of its own.

The path of a command's output never waits for a client: what a slow one misses is replaced by what is newer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import anyio
import structlog

from taskcell.errors import SandboxLost
from taskcell.process.output import stripped
from taskcell.process.process import Process, Totals
from taskcell.supervisor import protocol

log = structlog.get_logger(__name__)

#: Seconds between two messages: at most ten a second, as users are promised.
INTERVAL = 0.1
#: Bytes of the end of the output that are looked at, and what is shown of them at most.
LOOKED_AT = 2048
SHOWN_LINES = 3
SHOWN_CHARS = 400

T = TypeVar("T")
#: Takes bytes of output so far, and the newest lines.
Notify = Callable[[float, str], Awaitable[None]]


class Progress:
    """Tells of one process, once there is one: give `watch` to whoever starts it."""

    def __init__(self, notify: Notify) -> None:
        self._notify = notify
        self._process: Process | None = None
        self._started = anyio.Event()

    def watch(self, process: Process) -> None:
        self._process = process
        self._started.set()

    async def tell_while(self, call: Callable[[], Awaitable[T]]) -> T:
        """Await a call that raises nothing, and tell of its process meanwhile."""
        async with anyio.create_task_group() as telling:
            telling.start_soon(self._guarded)
            answer = await call()
            telling.cancel_scope.cancel()
        return answer

    async def _guarded(self) -> None:
        """Whatever goes wrong with progress is no reason for the call to fail."""
        try:
            await self._tell()
        except Exception:
            log.exception("Progress of a call is not told any more.")

    async def _tell(self) -> None:
        await self._started.wait()
        process = self._process
        assert process is not None
        told: Totals = (0, 0)
        while not process.has_ended:
            # First: most commands have ended by then.
            await anyio.sleep(INTERVAL)
            try:
                await process.news(told)
                # Before it is read: what comes meanwhile is told the next time.
                seen = process.written
                newest = await newest_output(process)
            except SandboxLost:
                return
            if seen != told:
                told = seen
                with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):  # the client has gone
                    await self._notify(float(sum(told)), newest)


async def newest_output(process: Process) -> str:
    """The last lines that a process has written, as plain text. Raises SandboxLost."""
    newest = b""
    for stream in protocol.Stream:
        found = await process.read(stream, protocol.FROM_THE_END, LOOKED_AT)
        newest = found.data or newest
    return newest_lines(newest)


def newest_lines(data: bytes) -> str:
    """The last lines of some output, as plain text."""
    text = stripped(data.decode("utf-8", "replace")).replace("\r", "\n")
    lines = [line for line in text.splitlines() if line.strip()]
    return "\n".join(lines[-SHOWN_LINES:])[-SHOWN_CHARS:]
