"""A session with a supervisor, which outlives the streams that carry it.

Both ends keep what the other one has not acknowledged. When a stream breaks, the next one begins with how far each end
has come, and what is missing is sent again: nothing is lost, and nothing happens twice.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress

import anyio
import anyio.abc
import structlog

from taskcell.errors import EngineUnavailable, ProtocolError, TaskcellError
from taskcell.raw_stream import SendsNow
from taskcell.supervisor import events, protocol, requests
from taskcell.supervisor.decoder import Decoder
from taskcell.supervisor.outbox import Outbox
from taskcell.text import MESSAGE_SHOWN, shown

log = structlog.get_logger(__name__)

#: Seconds. The supervisor's loop never blocks: a stream that takes no bytes for so long does not lead to it any more.
SEND_TIMEOUT = 10.0
#: Seconds from the stream's opening to WELCOME; a fresh exec on a busy machine takes up to some seconds.
WELCOME_TIMEOUT = 20.0
#: Seconds for a new stream when one has broken: engines and API servers are back from a restart within that, and a
#: call that has waited for it still answers within the minute after which clients give up.
PATIENCE = 30.0
#: Streams to try before the first WELCOME: nothing has begun that could be lost, and one that broke says nothing about
#: the sandbox. The seconds after which none is tried any more: an engine that hangs is not to be waited for thrice.
FIRST_STREAMS, FIRST_WITHIN = 3, 10.0
#: Seconds between two attempts: the first, and the longest.
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
#: Bytes to receive at once: what an engine's socket holds. Files that pass by wake the server less often.
RECEIVE_SIZE = 1 << 18
#: Bytes received after which the supervisor must learn so, and after which it learns so together with a request. It
#: keeps up to four times the first, and then sends no more.
ACK_STEP, ACK_ALONG = 1 << 18, 1 << 12
#: Bytes that may wait for the supervisor; a frame larger than SMALL_FRAME then waits for room.
ROOM, SMALL_FRAME = 4 << 20, 1 << 12
#: Of an engine's own words in the stream, why an exec failed: bytes that are taken, and seconds for all of them.
WORDS_MAX, WORDS_WITHIN = 4096, 1.0
#: What the end of a stream looks like.
STREAM_ENDS = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError)

#: Opens a stream to the supervisor. Raises TaskcellError.
Connect = Callable[[], AbstractAsyncContextManager[anyio.abc.ByteStream]]
#: Whether the container has ended for certain; it bounds its own wait, or is cancelled.
IsGone = Callable[[], Awaitable[bool]]


class LastingStream:
    """Carries one session.

    Arguments:
        hello: makes the first frame of a stream, from the number of the session to go on with and the bytes of it that
            were received.
        take: called with each piece that comes, in order; it must not block. It may raise ProtocolError.
    """

    def __init__(self, hello: Callable[[int, int], bytes], take: Callable[[bytes], None]) -> None:
        self._hello = hello
        self._take = take
        self._outbox = Outbox()
        self._sending = anyio.Lock(fast_acquire=True)
        self._stream: anyio.abc.ByteStream | None = None
        self._directly: Callable[[bytes], int] | None = None
        self._received = self._told = 0
        self._receiving: anyio.CancelScope | None = None
        self._life: anyio.CancelScope | None = None
        self._changed = anyio.Event()
        self._ended = False
        self.welcome: events.Welcome | None = None
        #: The supervisor has been asked to end: the end of the stream is the end of the session.
        self.is_ending = False
        #: When (monotonic) the last bytes came from the supervisor, and when the present stream was opened.
        self.heard = self.opened = time.monotonic()

    @property
    def is_away(self) -> bool:
        """Its stream has broken, and another one is being opened."""
        return self.welcome is not None and self._stream is None and not self._ended

    # --- its life ------------------------------------------------------------------------------------------------

    async def run(self, connect: Connect, is_gone: IsGone, on_welcome: Callable[[], None]) -> str:
        """Serve the session until it is over, and return why it is.

        Raises TaskcellError when a stream cannot be opened before the first WELCOME. Later ones are tried for PATIENCE.

        Arguments:
            on_welcome: called at the first WELCOME.
        """
        reason: str | None = None
        with anyio.CancelScope() as self._life:
            reason = await self._begin(connect, on_welcome)
            while reason is None and self.welcome is not None and not self.is_ending:
                reason = await self._reconnect(connect, is_gone)
        self.end()
        return reason or "its channel ended"

    def end(self) -> None:
        """Open no other stream, and close this one."""
        self._ended = True
        if self._life is not None:
            self._life.cancel()
        self._wake()

    def renew(self) -> None:
        """Give up the stream, and go on with another one."""
        if self._receiving is not None:
            self._receiving.cancel()

    async def _begin(self, connect: Connect, on_welcome: Callable[[], None]) -> str | None:
        """Serve on the first stream that does not break before WELCOME; as `_serve`. Raises TaskcellError."""
        began = time.monotonic()
        for left in reversed(range(FIRST_STREAMS)):
            try:
                reason = await self._serve(connect, on_welcome)
            except EngineUnavailable:
                if not left or time.monotonic() - began > FIRST_WITHIN:
                    raise
                reason = None
            if reason is not None or self.welcome is not None:
                return reason
            await anyio.sleep(FIRST_PAUSE)
        return None

    async def _reconnect(self, connect: Connect, is_gone: IsGone) -> str | None:
        """Serve on another stream until that breaks, too; returns why the session is over if it is."""
        began, pause, is_back = time.monotonic(), FIRST_PAUSE, False

        def back() -> None:
            nonlocal is_back
            is_back = True
            bound.deadline = float("inf")
            log.info("a sandbox was connected to again", after=round(time.monotonic() - began, 3))

        with anyio.move_on_after(PATIENCE) as bound:
            while True:
                try:
                    reason = await self._serve(connect, back)
                except TaskcellError as error:
                    log.debug("a sandbox could not be connected to again yet", reason=str(error))
                    reason = None
                if reason is not None or is_back:
                    return reason
                if await is_gone():
                    return "its container has ended"
                await anyio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
        return f"its supervisor does not answer, and could not be reached for {PATIENCE:g} s"

    async def _serve(self, connect: Connect, on_welcome: Callable[[], None]) -> str | None:
        """Serve on one stream until it breaks; returns why the session is over if it is. Raises TaskcellError."""
        async with connect() as stream:
            receiving = self._receiving = anyio.CancelScope()
            try:
                await self._greet(stream, on_welcome)
                with receiving:
                    await self._receive(stream)
            except TimeoutError:
                return None if self.welcome is not None else "its supervisor did not answer"
            except ProtocolError as error:
                return str(error)
            except STREAM_ENDS:
                return None
            finally:
                self._stream = None
        return None

    async def _greet(self, stream: anyio.abc.ByteStream, on_welcome: Callable[[], None]) -> None:
        """Exchange HELLO and WELCOME, and send again what the supervisor lacks. Raises ProtocolError, STREAM_ENDS."""
        with anyio.fail_after(WELCOME_TIMEOUT):
            await stream.send(self._hello(self.welcome.session if self.welcome else 0, self._received))
            welcome, rest = await self._first_answer(stream)
        async with self._sending:
            self._outbox.rewind(welcome.place)
            self.welcome, self._stream = welcome, stream
            self._directly = stream.send_now if isinstance(stream, SendsNow) else None
        self.heard = self.opened = time.monotonic()
        self._told = self._received
        on_welcome()
        self._wake()
        self._accept(rest)
        await self._flush()

    async def _first_answer(self, stream: anyio.abc.ByteStream) -> tuple[events.Welcome, bytes]:
        """Return the WELCOME, which is not a part of the session, and the bytes after it."""
        data = b""
        while len(data) < protocol.COUNT.size or len(data) < (size := protocol.COUNT.unpack_from(data)[0] + 4):
            data += await stream.receive(RECEIVE_SIZE)
            if len(data) >= protocol.COUNT.size and protocol.COUNT.unpack_from(data)[0] > protocol.MAX_FROM_SUPERVISOR:
                if self.welcome is not None:
                    raise anyio.EndOfStream  # whether the sandbox has ended is asked by other ways
                said = shown(_one_line(await _words(stream, data)), MESSAGE_SHOWN)
                raise ProtocolError(f"the engine could not start it: {said}")
        event = next(iter(Decoder().feed(data[:size])), None)
        if isinstance(event, events.Error):
            raise ProtocolError(f"the supervisor refused the connection: {shown(event.message, MESSAGE_SHOWN)}")
        if not isinstance(event, events.Welcome) or event.version != protocol.VERSION:
            raise ProtocolError("the supervisor did not greet as this version does")
        return event, data[size:]

    # --- receiving -----------------------------------------------------------------------------------------------

    async def _receive(self, stream: anyio.abc.ByteStream) -> None:
        """Take what comes until the stream breaks. Raises ProtocolError, STREAM_ENDS."""
        while True:
            self._accept(await stream.receive(RECEIVE_SIZE))
            if self._received - self._told >= ACK_STEP:
                await self._flush()

    def _accept(self, data: bytes) -> None:
        """Kept apart from `_receive` so that received bytes are freed before the next receive blocks."""
        self.heard = time.monotonic()
        self._received += len(data)
        self._take(data)

    # --- sending -------------------------------------------------------------------------------------------------

    def acknowledged(self, place: int) -> None:
        """The supervisor has taken so many bytes of the session. Raises ProtocolError."""
        self._outbox.acknowledged(place)
        self._wake()

    async def send(self, frame: bytes) -> None:
        """Send whole frames, or keep them for the next stream. The caller finds out by other ways if none comes.

        Sending is shielded and bounded, so that a cancelled caller does not cut a frame in two.
        """
        while len(frame) > SMALL_FRAME and self._outbox.size > ROOM and not self._ended:
            await self._changed.wait()
        self._outbox.put(frame)
        await self._flush()

    async def _flush(self) -> None:
        # Most frames go at once. A bound on a wait that there is not costs more than they do.
        rest = b"" if self._sending.locked() else self._send_now()
        if not rest and not self._sending.locked():
            return
        with anyio.move_on_after(SEND_TIMEOUT, shield=True) as bound:
            async with self._sending:  # if there is a rest, it was free: nobody comes between the two parts of a frame
                stream = self._stream
                if stream is None:
                    return
                try:
                    if data := rest or self._next():
                        await stream.send(data)
                except STREAM_ENDS:
                    self.renew()
        if bound.cancelled_caught:
            self.renew()

    def _send_now(self) -> bytes:
        """Send what waits as far as it goes at once, and return the rest."""
        if self._stream is None:
            return b""
        data = self._next()
        if not data or self._directly is None:
            return data
        try:
            return data[self._directly(data) :]
        except OSError:
            self.renew()
            return b""

    def _next(self) -> bytes:
        """What is to be sent next, with an acknowledgement if one is due."""
        if self._received - self._told >= ACK_ALONG:
            self._told = self._received
            self._outbox.put(requests.acknowledge(self._received))
        return self._outbox.take()

    # --- waiting -------------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    async def back(self) -> None:
        """Wait until there is a stream, or the session is over: at most about PATIENCE."""
        while self.is_away:
            await self._changed.wait()


async def _words(stream: anyio.abc.ByteStream, data: bytes) -> bytes:
    """An engine's words that begin with `data`: no frame is as long as their first letters would say."""
    with anyio.move_on_after(WORDS_WITHIN), suppress(*STREAM_ENDS):
        while len(data) < WORDS_MAX:
            data += await stream.receive(RECEIVE_SIZE)
    return data


def _one_line(data: bytes) -> str:
    return " ".join(data.decode("utf-8", "replace").split())
