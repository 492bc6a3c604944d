"""MCP progress: the newest lines of a command that runs, and a sign of life of one that is silent.

A command's output never waits for a client: what a slow client missed is replaced by what is newer.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

import anyio
import structlog
from mcp.server.context import ServerRequestContext

from taskcell.errors import SandboxLost
from taskcell.process.process import Process, Totals
from taskcell.process.terminal_text import displayed
from taskcell.supervisor import protocol

log = structlog.get_logger(__name__)

#: Seconds between two messages: users are promised at most ten a second.
INTERVAL = 0.1
#: Seconds of silence after which a call says that it is still at work. Clients whose time-out starts again with each
#: message give up after 60 seconds (`resetTimeoutOnProgress` of the SDK in TypeScript) or 30: two may be late.
HEARTBEAT = 10.0
#: Bytes of the end of the output that are looked at, and what is shown of them at most.
LOOKED_AT = 2048
SHOWN_LINES = 3
SHOWN_CHARS = 400

T = TypeVar("T")
#: Takes a number that grows from message to message, and the message.
Notify = Callable[[float, str], Awaitable[None]]


def is_wanted(context: ServerRequestContext[Any, Any]) -> bool:
    """Return whether the client has asked for progress of a request.

    A client in this process gives the SDK a function instead of a token, and nothing public shows that.
    """
    if (context.meta or {}).get("progress_token") is not None:
        return True
    asked: Any = context.session._request_outbound
    asked = getattr(asked, "_inner", asked)  # in the revision 2026-07-28 the SDK wraps it
    return getattr(asked, "_on_progress", None) is not None


class Progress:
    """Reports how one call goes on. Give `watch` to whoever starts its process.

    A message's number is the bytes of output so far, or one more than the last: it grows with each message, as the
    specification wants it.

    Arguments:
        notify: sends one message to the client.
        heartbeat: seconds.
        before: says in a sentence what the call waits for before its process starts; empty for nothing particular.
    """

    def __init__(
        self, notify: Notify, heartbeat: float = HEARTBEAT, before: Callable[[], Awaitable[str]] | None = None
    ) -> None:
        self._notify = notify
        self._before = before
        self._heartbeat = heartbeat
        self._process: Process | None = None
        self._started = anyio.Event()
        self._began = self._heard = self._said = time.monotonic()
        self._number = 0
        self._sending = anyio.Lock()

    def watch(self, process: Process) -> None:
        self._process = process
        self._started.set()

    async def report_while(self, call: Callable[[], Awaitable[T]]) -> T:
        """Await a call that raises nothing, and report on it meanwhile."""
        async with anyio.create_task_group() as reporting:
            reporting.start_soon(self._guarded, self._tell_output)
            reporting.start_soon(self._guarded, self._tell_silence)
            answer = await call()
            reporting.cancel_scope.cancel()
        return answer

    async def _guarded(self, tell: Callable[[], Awaitable[None]]) -> None:
        """Whatever goes wrong with progress is no reason for the call to fail."""
        try:
            await tell()
        except Exception:
            log.exception("Progress of a call is not reported any more.")

    async def _tell_output(self) -> None:
        await self._started.wait()
        process = self._process
        assert process is not None
        reported: Totals = (0, 0)
        while not process.has_ended:
            # Sleep first: most commands end within this time.
            await anyio.sleep(INTERVAL)
            try:
                await process.news(reported)
                # Before it is read: what comes meanwhile is reported the next time.
                seen = process.written
                newest = await newest_output(process)
            except SandboxLost:
                return
            if seen != reported:
                reported, self._heard = seen, time.monotonic()
                await self._say(sum(reported), newest)

    async def _tell_silence(self) -> None:
        while True:
            left = self._said + self._heartbeat - time.monotonic()
            if left > 0:
                await anyio.sleep(left)
            else:
                await self._say(0, await self._sign_of_life())

    async def _sign_of_life(self) -> str:
        process, now = self._process, time.monotonic()
        if process is None or process.has_ended:
            before = await self._before() if process is None and self._before is not None else ""
            return before or f"Still at work after {now - self._began:.0f} s."
        silence = f"no output for {now - self._heard:.0f} s" if sum(process.written) else "no output"
        return f"Still running after {process.duration_ms / 1000:.0f} s, {silence}."

    async def _say(self, written: int, message: str) -> None:
        """Send one message; one after the other, so that their numbers grow on the wire too."""
        async with self._sending:
            self._number = max(self._number + 1, written)
            self._said = time.monotonic()
            with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):  # the client has gone
                await self._notify(float(self._number), message)


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
