"""MCP over standard input and output, on the event loop: no thread that a signal would have to wait for.

A descriptor is read and written when the kernel says that it may be; one that never would block (a regular file,
/dev/null) is never waited for, so every kind of standard input works.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Self

import anyio
import anyio.lowlevel
import structlog
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCError, JSONRPCMessage, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse, RequestId

from taskcell.mcp.transport.descriptors import Wire
from taskcell.mcp.transport.lines import LineSplitter, Malformed, decode, encode, too_long

log = structlog.get_logger(__name__)

#: Bytes asked for at once: what a pipe holds on Linux.
READ_SIZE = 1 << 16
#: Bytes waiting for a client that does not read, beyond which answers wait for room.
HIGH_WATER = 1 << 20
#: Seconds after the end of input in which answers to what was just asked may still leave: `… | taskcell serve`
#: shows them, and a client that has gone delays the clean-up by no more than this.
LAST_ANSWERS = 0.25
#: Seconds for what is written already to leave at the end; a client that still reads takes milliseconds.
DRAIN_TIMEOUT = 1.0


class StdioWriter:
    """Messages to the client. A message is on its way as a whole once `send` was entered: a cancel never cuts it.

    Arguments:
        fd: non-blocking.
        on_broken: called once when the client no longer reads.
    """

    def __init__(self, fd: int, on_broken: Callable[[], None]) -> None:
        self._fd = fd
        self._on_broken = on_broken
        self._buffer = bytearray()
        self._broken = False
        self._closed = False
        self._stuck = anyio.Event()
        self._room = anyio.Event()
        self._unanswered: set[RequestId] = set()
        self._settled = anyio.Event()

    async def send(self, item: SessionMessage, /) -> None:
        """Write one message; wait while the client is more than HIGH_WATER bytes behind.

        Raises:
            anyio.ClosedResourceError: the server has ended the connection.
            anyio.BrokenResourceError: the client does not read any more.
        """
        if self._closed:
            raise anyio.ClosedResourceError
        if self._broken:
            raise anyio.BrokenResourceError
        self._buffer += encode(item.message)
        self._flush()
        if isinstance(item.message, JSONRPCResponse | JSONRPCError):
            self.settle(item.message.id)
        while len(self._buffer) > HIGH_WATER:
            await self._room.wait()

    def _flush(self) -> None:
        """Write what the descriptor takes now."""
        try:
            while self._buffer:
                del self._buffer[: os.write(self._fd, self._buffer)]
        except BlockingIOError:
            self._stuck.set()
        except OSError as error:
            self._broken = True
            self._buffer.clear()
            log.info("The client does not read any more; the server ends.", error=errno.errorcode.get(error.errno or 0))
            self._on_broken()
        if len(self._buffer) <= HIGH_WATER:
            room, self._room = self._room, anyio.Event()
            room.set()

    async def pump(self) -> None:
        """Write the rest whenever the client makes room; runs beside the session until it is cancelled."""
        while True:
            await self._stuck.wait()
            self._stuck = anyio.Event()
            await self._drain()

    async def _drain(self) -> None:
        while self._buffer:
            await anyio.wait_writable(self._fd)
            self._flush()

    async def finish(self) -> None:
        """Let go of what is still in the buffer, within DRAIN_TIMEOUT."""
        with anyio.move_on_after(DRAIN_TIMEOUT, shield=True):
            await self._drain()

    def expect(self, identity: RequestId) -> None:
        """A request came in that must be answered."""
        self._unanswered.add(identity)

    def settle(self, identity: RequestId | None) -> None:
        """A request was answered, or its client does not want an answer any more."""
        if identity is not None:
            self._unanswered.discard(identity)
        if not self._unanswered:
            settled, self._settled = self._settled, anyio.Event()
            settled.set()

    async def answered(self) -> None:
        """Wait until no request is without its answer, within LAST_ANSWERS."""
        with anyio.move_on_after(LAST_ANSWERS):
            while self._unanswered:
                await self._settled.wait()

    async def aclose(self) -> None:
        self._closed = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class StdioReader:
    """Messages from the client. Malformed lines are answered here and never reach the session.

    Arguments:
        fd: non-blocking; a pipe, a socket, a terminal, a regular file or /dev/null.
        writer: takes the answers to malformed lines.
        on_end: called once at the end of input.
    """

    def __init__(self, fd: int, writer: StdioWriter, on_end: Callable[[], None]) -> None:
        self._fd = fd
        self._writer = writer
        self._on_end = on_end
        self._splitter = LineSplitter()
        self._lines: deque[bytes | None] = deque()
        self._ended = False
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
            while self._lines:
                if (message := await self._take(self._lines.popleft())) is not None:
                    return SessionMessage(message)
            if self._ended:
                raise anyio.EndOfStream
            await self._fill()

    async def _fill(self) -> None:
        data = await self._read()
        if data:
            self._lines.extend(self._splitter.feed(data))
            return
        if rest := self._splitter.end():
            self._lines.append(rest)
            return
        self._ended = True
        self._on_end()
        await self._writer.answered()

    async def _read(self) -> bytes:
        while True:
            try:
                return os.read(self._fd, READ_SIZE)
            except BlockingIOError:
                await anyio.wait_readable(self._fd)
            except OSError as error:
                log.info(
                    "Standard input cannot be read any more; the server ends.", error=os.strerror(error.errno or 0)
                )
                return b""

    async def _take(self, line: bytes | None) -> JSONRPCMessage | None:
        if line is None:
            log.warning("A message from the client is over the limit and was skipped.")
            await self._reply(too_long())
            return None
        if not line.strip():
            return None
        try:
            message = decode(line)
        except Malformed as fault:
            log.warning("The client sent a malformed message.", reason=str(fault))
            if fault.reply is not None:
                await self._reply(fault.reply)
            return None
        self._account(message)
        return message

    def _account(self, message: JSONRPCMessage) -> None:
        match message:
            case JSONRPCRequest(id=identity):
                self._writer.expect(identity)
            case JSONRPCNotification(method="notifications/cancelled", params={"requestId": str() | int() as identity}):
                self._writer.settle(identity)
            case _:
                pass

    async def _reply(self, answer: JSONRPCError) -> None:
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            await self._writer.send(SessionMessage(answer))

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


@asynccontextmanager
async def stdio_streams(
    wire: Wire, *, on_end: Callable[[], None], on_broken: Callable[[], None]
) -> AsyncIterator[tuple[StdioReader, StdioWriter]]:
    """The two streams of a session; on leaving, what was written is let go.

    Arguments:
        on_end: called at the end of input, before the last answers are waited for.
        on_broken: called when the client no longer reads; must end the session.
    """
    writer = StdioWriter(wire.write, on_broken)
    reader = StdioReader(wire.read, writer, on_end)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(writer.pump)
            yield reader, writer
            tasks.cancel_scope.cancel()
    finally:
        await writer.finish()
