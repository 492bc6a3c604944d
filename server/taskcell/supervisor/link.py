"""A session with a supervisor, which outlives the streams that carry it.

Both ends keep what the other one has not acknowledged. When a stream breaks, the next one begins with how far each end
has come, and what is missing is sent again: nothing is lost, and nothing happens twice.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import anyio
import anyio.abc
import structlog

from taskcell.errors import EngineUnavailable, ProtocolError, TaskcellError
from taskcell.raw_stream import SendsNow
from taskcell.supervisor import events, requests
from taskcell.supervisor.greeting import STREAM_ENDS, first_answer
from taskcell.supervisor.outbox import Outbox

log = structlog.get_logger(__name__)

#: Seconds. The supervisor's loop never blocks: a stream that takes no bytes for so long does not lead to it any more.
SEND_TIMEOUT = 10.0
#: Seconds from the stream's opening to WELCOME; a fresh exec on a busy machine takes up to some seconds.
WELCOME_TIMEOUT = 20.0
#: Seconds for a new stream when one has broken: engines and API servers are back from a restart within that, and a
#: call that has waited for it still answers within the minute after which clients give up. Where the engine itself does
#: not answer, a session that no call waits for lives on as long as its supervisor does.
PATIENCE = 30.0
#: Streams to try before the first WELCOME: nothing has begun that could be lost, and one that broke says nothing about
#: the sandbox. The seconds after which none is tried any more: an engine that hangs is not to be waited for thrice.
FIRST_STREAMS, FIRST_WITHIN = 3, 10.0
#: Seconds after which an engine that says nothing of a sandbox hangs, and counts as away.
GONE_TIMEOUT = 10.0
#: Seconds between two attempts: the first, and the longest.
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
#: Bytes to receive at once: what an engine's socket holds. Files that pass by wake the server less often.
RECEIVE_SIZE = 1 << 18
#: Bytes received after which the supervisor must learn so, and after which it learns so together with a request. It
#: keeps up to four times the first, and then sends no more.
ACK_STEP, ACK_ALONG = 1 << 18, 1 << 12
#: Bytes that may wait for the supervisor; a frame larger than SMALL_FRAME then waits for room.
ROOM, SMALL_FRAME = 4 << 20, 1 << 12

#: Opens a stream to the supervisor. Raises TaskcellError.
Connect = Callable[[], AbstractAsyncContextManager[anyio.abc.ByteStream]]
#: Whether the container has ended for certain; None where the engine does not answer. It bounds its own wait, or is
#: cancelled.
IsGone = Callable[[], Awaitable[bool | None]]


class LastingStream:
    """Carries one session.

    Arguments:
        hello: makes the first frame of a stream, from the number of the session to go on with and the bytes of it that
            were received.
        take: called with each piece that comes, in order; it must not block. It may raise ProtocolError.
        lives: seconds that the supervisor lives on without hearing from this end.
    """

    def __init__(self, hello: Callable[[int, int], bytes], take: Callable[[bytes], None], lives: float) -> None:
        self._hello = hello
        self._take = take
        self._lives = lives
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
        #: When (monotonic) the last bytes came from the supervisor, when the present stream was opened, and when the
        #: last one broke.
        self.heard = self.opened = self._broke = time.monotonic()

    @property
    def is_away(self) -> bool:
        """Its stream has broken, and another one is being opened."""
        return self.welcome is not None and self._stream is None and not self._ended

    # --- its life ------------------------------------------------------------------------------------------------

    async def run(self, connect: Connect, is_gone: IsGone, on_welcome: Callable[[], None]) -> str:
        """Serve the session until it is over, and return why it is.

        Raises TaskcellError when a stream cannot be opened before the first WELCOME. Later ones are tried for PATIENCE
        after the engine has answered last.

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
        while True:
            asked: list[bool | None] = []

            async def ask() -> bool | None:
                gone: bool | None = None
                with anyio.move_on_after(GONE_TIMEOUT):
                    gone = await is_gone()
                asked.append(gone)  # noqa: B023 - called in this round alone
                return gone

            with anyio.move_on_after(PATIENCE) as bound:
                return await self._try_again(connect, ask, bound)
            if await ask():
                return "its container has ended"
            away = time.monotonic() - self._broke
            if None not in asked or away > self._lives:
                return f"its supervisor does not answer, and could not be reached for {away:.0f} s"

    async def _try_again(self, connect: Connect, is_gone: IsGone, bound: anyio.CancelScope) -> str | None:
        """As `_reconnect`; `bound` cancels it when a stream does not come in time."""
        pause, is_back = FIRST_PAUSE, False

        def back() -> None:
            nonlocal is_back
            is_back = True
            bound.deadline = float("inf")
            log.info("a sandbox was connected to again", after=round(time.monotonic() - self._broke, 3))

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
                if self._stream is not None:
                    self._stream, self._broke = None, time.monotonic()
        return None

    async def _greet(self, stream: anyio.abc.ByteStream, on_welcome: Callable[[], None]) -> None:
        """Exchange HELLO and WELCOME, and send again what the supervisor lacks. Raises ProtocolError, STREAM_ENDS."""
        with anyio.fail_after(WELCOME_TIMEOUT):
            await stream.send(self._hello(self.welcome.session if self.welcome else 0, self._received))
            welcome, rest = await first_answer(stream, is_first=self.welcome is None)
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
        """Wait until there is a stream, or the session is over; after PATIENCE it may still be away.

        Some seconds in any case: an engine that is back is asked within the longest pause.
        """
        left = self._broke + PATIENCE - time.monotonic()
        with anyio.move_on_after(max(left, LONGEST_PAUSE) + LONGEST_PAUSE):
            while self.is_away:
                await self._changed.wait()
