"""Messages from the client over a descriptor, on the event loop.

A descriptor that never would block (a regular file, /dev/null) is never waited for, so every kind of standard input
works.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

import anyio
import anyio.lowlevel
from mcp.shared.message import ServerMessageMetadata, SessionMessage
from mcp_types import INVALID_REQUEST, ErrorData, JSONRPCError, JSONRPCMessage, JSONRPCNotification, JSONRPCRequest

from taskcell.log import Logger
from taskcell.mcp.transport.descriptors import is_client, peer_left
from taskcell.mcp.transport.in_flight import Claim, InFlight
from taskcell.mcp.transport.lines import LineSplitter, Malformed, batch, decode, too_long
from taskcell.mcp.transport.oversized import Oversized
from taskcell.mcp.transport.writer import StdioWriter

log = Logger(__name__)

#: Bytes asked for at once: what a pipe holds on Linux.
READ_SIZE = 1 << 16
#: Seconds after the end of a file or of a terminal's input in which answers may still leave: `taskcell serve < file`
#: shows them, and nothing delays the clean-up by more than this.
LAST_ANSWERS = 0.25


class StdioReader:
    """The way from the client. Malformed lines are answered here, and requests wait here until there is room.

    Arguments:
        fd: non-blocking; a pipe, a socket, a terminal, a regular file or /dev/null.
        writer: takes the answers to malformed lines.
        in_flight: decides which requests may run.
        on_end: called once, at the end of input.
    """

    def __init__(self, fd: int, writer: StdioWriter, in_flight: InFlight, on_end: Callable[[], None]) -> None:
        self._fd = fd
        self._writer = writer
        self._in_flight = in_flight
        self._on_end = on_end
        self._splitter = LineSplitter()
        self._lines: deque[bytes | Oversized] = deque()
        self._ended = False
        self._give_up_at = 0.0
        self._closed = False

    async def receive(self) -> SessionMessage | Exception:
        """The next message.

        Raises:
            anyio.EndOfStream: end of input.
            anyio.ClosedResourceError: the server has ended the connection.
        """
        # One turn for the handlers: a client that floods the pipe must not starve what it asked for.
        await anyio.lowlevel.checkpoint()
        while True:
            if self._closed:
                raise anyio.ClosedResourceError
            if self._ended and anyio.current_time() >= self._give_up_at:
                raise anyio.EndOfStream
            if (message := self._next()) is not None:
                return message
            if self._ended:
                await self._last_answers()
            elif self._in_flight.is_full:
                await self._wait_for_room()
            else:
                await self._fill()

    def _next(self) -> SessionMessage | None:
        """What can be handed out now: requests for which there is room, and notifications at once."""
        while True:
            if (claim := self._in_flight.ready()) is not None:
                return self._request(claim)
            if not self._lines or self._in_flight.is_full:
                return None
            message = self._take(self._lines.popleft())
            if message is not None:
                return SessionMessage(message)

    def _request(self, claim: Claim) -> SessionMessage:
        assert claim.request is not None

        async def unanswered() -> None:
            self._in_flight.end(claim)

        return SessionMessage(claim.request, ServerMessageMetadata(on_request_unanswered=unanswered))

    # --- bytes ---------------------------------------------------------------------------------------------------

    async def _fill(self) -> None:
        try:
            data = os.read(self._fd, READ_SIZE)
        except BlockingIOError:
            readable = self._until_readable
            # Without a request that waits, nothing but a line can bring a message.
            await (first_of(readable, self._in_flight.changed) if self._in_flight.has_waiting else readable())
            return
        except OSError as error:
            log.info("Standard input cannot be read any more; the server ends.", error=os.strerror(error.errno or 0))
            data = b""
        if data:
            self._lines.extend(self._splitter.feed(data))
        elif rest := self._splitter.end():
            self._lines.append(rest)
        else:
            self._end()

    async def _until_readable(self) -> None:
        await anyio.wait_readable(self._fd)

    async def _wait_for_room(self) -> None:
        """Read nothing while too much is in flight; that the client leaves is noticed all the same."""
        has_left = False

        async def watch() -> None:
            nonlocal has_left
            await peer_left(self._fd)
            has_left = True

        await first_of(watch, self._in_flight.changed)
        if has_left:
            self._end()

    def _end(self) -> None:
        self._ended = True
        self._lines.clear()
        self._on_end()
        if is_client(self._fd):
            # The SDK's 1.x client crashes at its exit on an answer that arrives after it closed our input.
            self._writer.fall_silent()
        else:
            self._give_up_at = anyio.current_time() + LAST_ANSWERS

    async def _last_answers(self) -> None:
        """Give the requests of a file the time to be answered, until there is none left or the time is over."""
        if not self._in_flight.is_awaited:
            self._give_up_at = 0.0
        with anyio.move_on_at(self._give_up_at):
            await self._in_flight.changed()

    # --- messages ------------------------------------------------------------------------------------------------

    def _take(self, line: bytes | Oversized) -> JSONRPCMessage | None:
        """A message that may be handled at once. A request waits its turn, and a bad line is answered."""
        if isinstance(line, Oversized):
            log.warning("A message from the client is over the limit and was skipped.")
            identity = line.identity
            self._writer.reply(too_long(None if self._in_flight.knows(identity) else identity))
            return None
        if not line.strip():
            return None
        if messages := batch(line):
            self._lines.extendleft(reversed(messages))  # each is taken, and answered, by itself
            return None
        try:
            message = decode(line)
        except Malformed as fault:
            log.warning("The client sent a malformed message.", reason=str(fault))
            if fault.reply is not None:
                self._writer.reply(fault.reply)
            return None
        if isinstance(message, JSONRPCRequest):
            self._queue(message, len(line))
            return None
        match message:
            case JSONRPCNotification(method="notifications/cancelled", params={"requestId": str() | int() as identity}):
                self._in_flight.cancel(identity)
            case _:
                pass
        return message

    def _queue(self, request: JSONRPCRequest, size: int) -> None:
        if self._in_flight.knows(request.id):
            # Under its own id: a client keeps one call for an id, the last one, and that is the call which is refused.
            reason = "Invalid request: the id is that of a request which is still running; use another one."
            error = ErrorData(code=INVALID_REQUEST, message=reason)
            self._writer.reply(JSONRPCError(jsonrpc="2.0", id=request.id, error=error))
            return
        self._in_flight.arrive(request, size)

    async def aclose(self) -> None:
        self._closed = True

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


async def first_of(*waits: Callable[[], Awaitable[None]]) -> None:
    """Wait until one of them is over; the others are cancelled."""
    async with anyio.create_task_group() as waiting:

        async def end_with(wait: Callable[[], Awaitable[None]]) -> None:
            await wait()
            waiting.cancel_scope.cancel()

        for wait in waits:
            waiting.start_soon(end_with, wait)
