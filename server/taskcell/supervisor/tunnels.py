"""Tunnels: TCP connections of the sandbox's loopback, as byte streams of the server."""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import anyio
import anyio.abc

from taskcell.errors import ProtocolError
from taskcell.supervisor import events, requests
from taskcell.supervisor.protocol import TUNNEL_ACCEPTED, TUNNEL_FIRST_CREDIT, TUNNEL_PIECE

#: Bytes that a program may have on the way to its reader here. Four pieces, so that it need not wait for each.
RECEIVE_WINDOW = 1 << 18
#: Bytes read after which credit is given back: a frame for each piece would double their number.
CREDIT_STEP = RECEIVE_WINDOW // 4


class TunnelRefused(anyio.BrokenResourceError):
    """A tunnel could not be opened. `errno` is the sandbox's, 0 when the sandbox is lost."""

    def __init__(self, errno: int, reason: str) -> None:
        super().__init__(reason)
        self.errno = errno


#: Sends whole frames. Raises SandboxLost.
Send = Callable[[bytes], Awaitable[None]]


class Tunnel(anyio.abc.ByteStream):
    """One end of a tunnel; `aclose` resets it unless both ends have ended it.

    One task may receive while another one sends. After a reset, or when the sandbox is lost, both raise
    BrokenResourceError.
    """

    def __init__(self, number: int, table: Tunnels) -> None:
        self.number = number
        self._table = table
        self._received: deque[bytes] = deque()
        self._granted = TUNNEL_FIRST_CREDIT
        self._owed = 0
        self._room = 0
        self._changed = anyio.Event()
        self._has_ended = self._has_sent_eof = False
        #: Why it is gone; None while it stands. The error that the supervisor gave for it, 0 for none.
        self.broken: str | None = None
        self.errno = 0
        self.is_open = False

    # --- what the supervisor says ------------------------------------------------------------------------------

    def take(self, event: events.TunnelEvent) -> None:
        """Take an event in the task that reads the channel. Raises ProtocolError."""
        if isinstance(event, events.TunnelData):
            self._granted -= len(event.data)
            if self._granted < 0 or self._has_ended:
                raise ProtocolError("the supervisor sent more of a tunnel than it may")
            self._received.append(event.data)
        elif isinstance(event, events.TunnelCredit):
            self._room += event.amount
        elif isinstance(event, events.TunnelOpened):
            self._room, self.is_open = event.window, True
        elif isinstance(event, events.TunnelEnd):
            self._has_ended = True
        else:
            self.errno = event.errno
            self.lose(os.strerror(event.errno) if event.errno in errno.errorcode else "it was reset")
        self._wake()

    def lose(self, reason: str) -> None:
        self.broken = self.broken or reason
        self._received.clear()
        self._table.forget(self)
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    async def _next(self) -> None:
        await self._changed.wait()
        self._check()

    def _check(self) -> None:
        if self.broken is not None:
            raise anyio.BrokenResourceError(self.broken)

    # --- for its user ------------------------------------------------------------------------------------------

    async def opened(self) -> None:
        """Wait until it stands. Raises BrokenResourceError."""
        while not self.is_open:
            await self._next()

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Return all that has come, `max_bytes` or one piece at most. Raises EndOfStream, BrokenResourceError."""
        while not self._received:
            self._check()
            if self._has_ended:
                raise anyio.EndOfStream
            await self._changed.wait()
        data = self._received.popleft()
        if len(data) > max_bytes:
            self._received.appendleft(data[max_bytes:])
            data = data[:max_bytes]
        self._owed += len(data)
        if self._owed >= CREDIT_STEP or self._granted <= 0:
            await self._give_credit()
        return data

    async def _give_credit(self) -> None:
        """Let the program send on: so much that a whole window may be on its way."""
        waiting = sum(map(len, self._received))
        more = RECEIVE_WINDOW - self._granted - waiting
        self._owed = 0
        if more > 0 and not self._has_ended and self.broken is None:
            self._granted += more
            await self._table.send(requests.tunnel_credit(self.number, more))

    async def send(self, item: bytes) -> None:
        """Send bytes as fast as the program reads them. Raises BrokenResourceError."""
        view = memoryview(item)
        while view:
            self._check()
            if not self._room:
                await self._next()
                continue
            size = min(self._room, TUNNEL_PIECE, len(view))
            self._room -= size
            await self._table.send_data(requests.tunnel_data(self.number, view[:size]))
            view = view[size:]

    async def send_eof(self) -> None:
        self._check()
        if not self._has_sent_eof:
            self._has_sent_eof = True
            await self._table.send(requests.tunnel_end(self.number))

    async def aclose(self) -> None:
        whole = self._has_ended and self._has_sent_eof and not self._received
        if self._table.forget(self) and not whole:
            self.broken = "it was closed"
            await self._table.send(requests.tunnel_reset(self.number))


@dataclass(slots=True)
class Tunnels:
    """The tunnels of one channel.

    Arguments:
        send: sends frames in their turn.
        on_accepted: called with each tunnel that a program has opened; it must not block. None: there are none.
    """

    send: Send
    on_accepted: Callable[[Tunnel], None] | None = None
    _all: dict[int, Tunnel] = field(default_factory=dict)
    _places: int = 0
    _highest: int = 0
    #: Of all data of tunnels one frame waits to be sent: a request of a call never waits for more than that.
    _bulk: anyio.Lock = field(default_factory=lambda: anyio.Lock(fast_acquire=True))

    def __len__(self) -> int:
        return len(self._all)

    async def send_data(self, frame: bytes) -> None:
        async with self._bulk:
            await self.send(frame)

    async def give_places(self, count: int) -> None:
        """Let the supervisor accept so many more. Raises SandboxLost."""
        self._places += count
        await self.send(requests.accept(count))

    def count_places(self, count: int) -> None:
        """A LISTEN gives so many."""
        self._places = count

    async def open(self, port: int) -> Tunnel:
        """Connect to a port of the sandbox's loopback. Raises TunnelRefused, SandboxLost.

        The caller bounds the wait, and closes the tunnel.
        """
        self._highest = self._highest % (TUNNEL_ACCEPTED - 1) + 1
        tunnel = self._all[self._highest] = Tunnel(self._highest, self)
        try:
            await self.send(requests.open_tunnel(tunnel.number, port))
            await tunnel.opened()
        except BaseException as error:
            with anyio.CancelScope(shield=True):
                await tunnel.aclose()
            if isinstance(error, anyio.BrokenResourceError):
                raise TunnelRefused(tunnel.errno, str(error)) from None
            raise
        return tunnel

    def take(self, event: events.TunnelEvent) -> None:
        """Hand an event to its tunnel. Raises ProtocolError when the supervisor accepts what it may not."""
        tunnel = self._all.get(event.process)
        if tunnel is not None:
            tunnel.take(event)
        elif isinstance(event, events.TunnelOpened) and event.process >= TUNNEL_ACCEPTED:
            if not self._places or self.on_accepted is None:
                raise ProtocolError("the supervisor accepted more connections than it may")
            self._places -= 1
            tunnel = self._all[event.process] = Tunnel(event.process, self)
            tunnel.take(event)
            self.on_accepted(tunnel)

    def forget(self, tunnel: Tunnel) -> bool:
        """Return whether it was known."""
        return self._all.pop(tunnel.number, None) is not None

    def lose(self, reason: str) -> None:
        for tunnel in tuple(self._all.values()):
            tunnel.lose(reason)
