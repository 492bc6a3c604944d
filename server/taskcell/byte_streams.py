"""Byte streams: two joined to one, and one that tells its end from a break over a carrier that cannot."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress

import anyio
import anyio.abc
from anyio.streams.buffered import BufferedByteReceiveStream

from taskcell.errors import SandboxLost

#: HTTP's name of the protocol that a connection to a port of a task has after its upgrade: that of `PieceStream`.
FORWARD = b"taskcell-forward"
#: Connections of one task to its ports at once. A supervisor carries 128, and egress may take 64 of them.
MAX_TASK_CONNECTIONS = 48
#: What a stream raises that is broken, and a sandbox that is lost.
BROKEN = (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError, SandboxLost)
#: Bytes that are received at once.
SPLICE_PIECE = 1 << 18
#: Bytes of one piece that is sent, and that is taken; and of the number before it.
_SENT_PIECE, _MAX_PIECE, _LENGTH = 1 << 16, 1 << 20, 4


class PieceStream(anyio.abc.ByteStream):
    """A stream in pieces: a length (four bytes, the most significant first) and so many bytes. Length 0 is its end.

    A carrier that ends before that is a reset, and `aclose` before both ends is one too. One task may receive while
    another one sends.

    Arguments:
        first: bytes of the carrier that were received already.
    """

    def __init__(self, carrier: anyio.abc.ByteStream, first: bytes = b"") -> None:
        self._carrier = carrier
        self._received = BufferedByteReceiveStream(carrier)
        if first:
            self._received.feed_data(first)
        self._left = 0
        self._has_ended = self._has_sent_eof = False
        self._ended = anyio.Event()

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Raises EndOfStream, BrokenResourceError, OSError."""
        if self._has_ended:
            raise anyio.EndOfStream
        try:
            if not self._left:
                self._left = int.from_bytes(await self._received.receive_exactly(_LENGTH), "big")
                if not self._left:
                    self._has_ended = True
                    self._ended.set()
                    raise anyio.EndOfStream
                if self._left > _MAX_PIECE:
                    raise anyio.BrokenResourceError("a piece is too long")
            data = await self._received.receive(min(self._left, max_bytes))
        except (anyio.IncompleteRead, anyio.EndOfStream) as error:
            if self._has_ended:
                raise
            raise anyio.BrokenResourceError("the connection was reset") from error
        self._left -= len(data)
        return data

    async def send(self, item: bytes) -> None:
        view = memoryview(item)
        while view:
            piece, view = view[:_SENT_PIECE], view[_SENT_PIECE:]
            await self._carrier.send(len(piece).to_bytes(_LENGTH, "big") + piece)

    async def send_eof(self) -> None:
        if not self._has_sent_eof:
            self._has_sent_eof = True
            await self._carrier.send(bytes(_LENGTH))

    async def lost(self) -> None:
        """Return when the carrier ends after the peer's way has, and before this one: else it has served its time.

        Whoever receives sees an earlier end by itself.
        """
        await self._ended.wait()
        with suppress(*BROKEN, anyio.EndOfStream):
            await self._received.receive(1)
        if self._has_sent_eof:
            await anyio.sleep_forever()

    async def aclose(self) -> None:
        await self._carrier.aclose()


CountBytes = Callable[[int], None]


def _uncounted(size: int) -> None:
    pass


async def splice(
    one: anyio.abc.ByteStream,
    other: anyio.abc.ByteStream,
    *,
    idle: float = math.inf,
    from_one: CountBytes = _uncounted,
    from_other: CountBytes = _uncounted,
) -> None:
    """Pass bytes on, both ways, until both sides have ended. The caller closes both.

    Raises BrokenResourceError when one breaks, or when nothing has come for too long.

    Arguments:
        idle: seconds without a byte either way.
        from_one, from_other: called with the bytes that each of them sends.
    """
    with anyio.move_on_after(idle) as waiting:

        async def pump(source: anyio.abc.ByteStream, sink: anyio.abc.ByteStream, count: CountBytes) -> None:
            try:
                while True:
                    data = await source.receive(SPLICE_PIECE)
                    count(len(data))
                    waiting.deadline = anyio.current_time() + idle
                    await sink.send(data)
            except anyio.EndOfStream:
                await _end(sink, waiting)
            except BROKEN:
                waiting.cancel()

        async with anyio.create_task_group() as both:
            both.start_soon(pump, one, other, from_one)
            both.start_soon(pump, other, one, from_other)
    if waiting.cancelled_caught:
        raise anyio.BrokenResourceError


async def splice_pieces(
    pieces: PieceStream,
    other: anyio.abc.ByteStream,
    *,
    from_pieces: CountBytes = _uncounted,
    from_other: CountBytes = _uncounted,
) -> None:
    """As `splice`; a peer that has ended its way, and closes the carrier while the other way goes on, is a reset too.

    Raises BrokenResourceError.
    """
    is_whole = False
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            await pieces.lost()
            group.cancel_scope.cancel()

        group.start_soon(watch)
        with suppress(anyio.BrokenResourceError):
            await splice(pieces, other, from_one=from_pieces, from_other=from_other)
            is_whole = True
        group.cancel_scope.cancel()
    if not is_whole:
        raise anyio.BrokenResourceError


async def _end(sink: anyio.abc.ByteStream, waiting: anyio.CancelScope) -> None:
    try:
        await sink.send_eof()
    except BROKEN:
        waiting.cancel()
