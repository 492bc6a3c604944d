"""Messages to the client over a descriptor, on the event loop."""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

import anyio
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCError, JSONRPCMessage, JSONRPCResponse, RequestId

from taskcell.log import Logger
from taskcell.mcp.transport.descriptors import peer_closed
from taskcell.mcp.transport.in_flight import Claim, InFlight
from taskcell.mcp.transport.lines import encode

log = Logger(__name__)

#: Bytes that the client has not taken, beyond which notifications wait. Answers do not: their room was reserved.
HIGH_WATER = 1 << 20
#: Seconds for what is written already to leave at the end; a client that still reads takes milliseconds.
DRAIN_TIMEOUT = 1.0


class StdioWriter:
    """The way to the client. A message leaves as a whole or not at all: a cancel never cuts it.

    Arguments:
        fd: non-blocking.
        in_flight: accounts for the bytes that the client has not taken.
        on_broken: called once, when the client no longer reads.
    """

    def __init__(self, fd: int, in_flight: InFlight, on_broken: Callable[[], None]) -> None:
        self._fd = fd
        self._in_flight = in_flight
        self._on_broken = on_broken
        self._lines: deque[tuple[memoryview, Claim]] = deque()
        self._size = 0
        self._broken = False
        self._closed = False
        self._silent = False
        #: Set once the first message has begun to leave.
        self.begun = anyio.Event()
        self._stuck = anyio.Event()
        self._room = anyio.Event()

    async def send(self, item: SessionMessage, /) -> None:
        """Write one message. The answer to a request never waits; others do while the client is behind.

        Raises:
            anyio.ClosedResourceError: the server has ended the connection.
            anyio.BrokenResourceError: the client does not read any more.
        """
        self._check()
        identity = _answered(item.message)
        if not self._in_flight.knows(identity):
            while self._size > HIGH_WATER:
                await self._room.wait()
            self._check()
        self._write(item.message, identity)

    def reply(self, refusal: JSONRPCError) -> None:
        """Refuse a message that never became a request. It does not wait: the reader stops when too much piles up."""
        if not (self._closed or self._broken):
            self._write(refusal, None)

    def fall_silent(self) -> None:
        """Write nothing any more, neither what is still here nor what comes: the client has left."""
        self._silent = True
        self._drop()

    def _check(self) -> None:
        if self._closed:
            raise anyio.ClosedResourceError
        if self._broken:
            raise anyio.BrokenResourceError

    def _write(self, message: JSONRPCMessage, identity: RequestId | None) -> None:
        line = encode(message)
        claim = self._in_flight.answer(identity, len(line)) or self._in_flight.message(len(line))
        if self._silent:
            self._in_flight.release(claim)
            return
        self._lines.append((memoryview(line), claim))
        self._size += len(line)
        self._flush()
        self.begun.set()

    def _flush(self) -> None:
        """Write what the descriptor takes now."""
        try:
            while self._lines:
                line, claim = self._lines[0]
                written = os.write(self._fd, line)
                self._size -= written
                if written < len(line):
                    self._lines[0] = (line[written:], claim)
                else:
                    self._lines.popleft()
                    self._in_flight.release(claim)
        except BlockingIOError:
            self._stuck.set()
        except OSError as error:
            self._break(errno.errorcode.get(error.errno or 0, ""))
        self._let_go_on()

    def _break(self, reason: str) -> None:
        if self._broken:
            return
        self._broken = True
        self._drop()
        log.info("The client does not read any more; the server ends.", error=reason)
        self._on_broken()

    def _drop(self) -> None:
        for _, claim in self._lines:
            self._in_flight.release(claim)
        self._lines.clear()
        self._size = 0
        self._let_go_on()

    def _let_go_on(self) -> None:
        if self._size <= HIGH_WATER:
            room, self._room = self._room, anyio.Event()
            room.set()

    async def pump(self) -> None:
        """Write the rest whenever the client makes room; runs beside the session until it is cancelled."""
        while True:
            await self._stuck.wait()
            self._stuck = anyio.Event()
            await self._drain()

    async def watch(self) -> None:
        """Notice a client that closes its reading end though there is nothing to write; runs beside the session."""
        await peer_closed(self._fd)
        self._break("EPIPE")

    async def _drain(self) -> None:
        while self._lines:
            await anyio.wait_writable(self._fd)
            self._flush()

    async def finish(self) -> None:
        """Let go of what is still here, within DRAIN_TIMEOUT."""
        with anyio.move_on_after(DRAIN_TIMEOUT, shield=True):
            await self._drain()

    async def aclose(self) -> None:
        self._closed = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def _answered(message: JSONRPCMessage) -> RequestId | None:
    """The id of the request that a message answers."""
    return message.id if isinstance(message, JSONRPCResponse | JSONRPCError) else None
