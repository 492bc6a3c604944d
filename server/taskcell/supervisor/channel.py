"""The server's end of a sandbox's channel: one byte stream, many processes.

Nothing here is retried: when the stream breaks, every process that was waited for is told that the sandbox is lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import anyio
import anyio.abc

from taskcell.errors import ProtocolError, SandboxLost
from taskcell.supervisor import events, protocol, requests
from taskcell.supervisor.decoder import Decoder

#: A supervisor that does not take bytes for this long is not running any more: its loop never blocks.
SEND_TIMEOUT = 10.0
#: From the stream's opening to WELCOME; a fresh exec on a busy machine takes up to some seconds.
WELCOME_TIMEOUT = 20.0
#: How engines tell, in the stream itself, that an exec failed (Docker with runc and crun).
ENGINE_FAILURE = (b"OCI runtime", b"unable to start", b"crun:")
#: Bytes asked of the stream at once: one frame of output and its header.
RECEIVE_SIZE = 1 << 17
#: Pieces of spools that are asked for at once: the supervisor ends a connection that makes it hold more than 4 MiB.
READS_AT_ONCE = 8


class ProcessListener(Protocol):
    """What the channel tells about one process, in order, from the reading task: it must not block."""

    def on_event(self, event: events.Event) -> None: ...

    def on_lost(self, reason: str) -> None: ...


class Channel:
    """Speaks `docs/protocol.md` over a stream that `run` is given.

    Arguments:
        token: what the supervisor knows its server by; 16 to 64 bytes.
        orphan_ttl: seconds that the supervisor lives on without a server.
    """

    def __init__(self, token: bytes, orphan_ttl: float) -> None:
        self._token = token
        self._orphan_ttl_ms = round(orphan_ttl * 1000)
        self._highest = 0
        self._listeners: dict[int, ProcessListener] = {}
        self._sending = anyio.Lock(fast_acquire=True)
        self._stream: anyio.abc.ByteStream | None = None
        self._on_lost: list[Callable[[], None]] = []
        self._to_forget: list[int] = []
        #: Taken for each piece of a spool that is asked for.
        self.reading = anyio.Semaphore(READS_AT_ONCE)
        self._pings: list[anyio.Event] = []
        self.welcome: events.Welcome | None = None
        self.lost_reason: str | None = None
        #: Processes with a living descendant, by number, and when (monotonic) the last of them was gone.
        self.living: set[int] = set()
        self.quiet_since = time.monotonic()
        #: Called when the last of them is gone; it must not block.
        self.on_quiet: Callable[[], None] | None = None
        #: When (monotonic) something came from the supervisor.
        self.heard = time.monotonic()

    @property
    def alive(self) -> bool:
        return self._stream is not None and self.lost_reason is None

    async def run(
        self,
        stream: anyio.abc.ByteStream,
        *,
        task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Say hello, then hand out events until the stream ends; started() is called at WELCOME.

        Raises SandboxLost when no WELCOME comes.
        """
        self._stream = stream
        try:
            await self.send(requests.hello(self._token, self._orphan_ttl_ms))
            decoder = Decoder()
            with anyio.fail_after(WELCOME_TIMEOUT) as hello_scope:
                while self.welcome is None:
                    self._take(decoder, await stream.receive(RECEIVE_SIZE))
                hello_scope.deadline = float("inf")
                task_status.started()
                while True:
                    data = await stream.receive(RECEIVE_SIZE)
                    self.heard = time.monotonic()
                    self._take(decoder, data)
        except TimeoutError:
            self._lose("its supervisor did not answer")
        except ProtocolError as error:
            self._lose(str(error))
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            self._lose("its channel ended")
        finally:
            self._lose("its channel was closed")
        if self.welcome is None:
            raise SandboxLost(f"The sandbox did not start: {self.lost_reason}.")

    def _take(self, decoder: Decoder, data: bytes) -> None:
        """A function of its own: nothing of what came is held while more is waited for."""
        if self.welcome is None and data.startswith(ENGINE_FAILURE):
            raise ProtocolError(f"the engine could not start it: {_one_line(data)}")
        for event in decoder.feed(data):
            if self.welcome is None:
                self._greet(event)
            else:
                self._hand_out(event)

    def _greet(self, event: events.Event) -> None:
        if isinstance(event, events.Error):
            raise ProtocolError(f"the supervisor refused the connection: {event.message}")
        if not isinstance(event, events.Welcome) or event.version != protocol.VERSION:
            raise ProtocolError("the supervisor did not greet as this version does")
        self.welcome = event

    def _hand_out(self, event: events.Event) -> None:
        if isinstance(event, events.Error):
            raise ProtocolError(f"the supervisor ended the connection: {event.message}")
        if isinstance(event, events.Spawned) and event.process in self._listeners:
            self.living.add(event.process)
        elif isinstance(event, events.Gone) and event.process in self.living:
            self.living.remove(event.process)
            self.quiet_since = time.monotonic()
            if not self.living and self.on_quiet is not None:
                self.on_quiet()
        elif isinstance(event, events.Pong) and self._pings:
            self._pings.pop(0).set()
        listener = self._listeners.get(event.process)
        if listener is not None:
            listener.on_event(event)

    def _lose(self, reason: str) -> None:
        if self.lost_reason is not None:
            return
        self.lost_reason = reason
        listeners, self._listeners = list(self._listeners.values()), {}
        for listener in listeners:
            listener.on_lost(reason)
        for callback in self._on_lost:
            callback()
        pings, self._pings = self._pings, []
        for ping in pings:
            ping.set()

    def give_up(self, reason: str) -> None:
        """Take the sandbox for lost: whoever waits for one of its processes is told."""
        self._lose(reason)

    @property
    def is_asked(self) -> bool:
        """A ping waits for its answer."""
        return bool(self._pings)

    async def ping(self) -> None:
        """Wait until the supervisor answers; the caller bounds it. Raises SandboxLost."""
        answered = anyio.Event()
        self._pings.append(answered)
        await self.send(requests.ping())
        await answered.wait()
        if self.lost_reason is not None:
            raise SandboxLost(f"The sandbox is gone: {self.lost_reason}.")

    def when_lost(self, callback: Callable[[], None]) -> None:
        """Call `callback` once, when the channel is lost, or now if it is; it must not block."""
        if self.lost_reason is not None:
            callback()
        else:
            self._on_lost.append(callback)

    def add(self, listener: ProcessListener) -> int:
        """Give a new process its number. Raises SandboxLost when the channel has ended."""
        if not self.alive:
            raise SandboxLost(f"The sandbox is gone: {self.lost_reason or 'it was not connected'}.")
        self._highest = number = self._highest + 1
        self._listeners[number] = listener
        return number

    def listen(self, listener: ProcessListener, number: int) -> None:
        """Take up a process that an earlier connection started."""
        self.reserve(number)
        self._listeners[number] = listener

    def reserve(self, number: int) -> None:
        """Give no later process this number: the supervisor remembers one that has it."""
        self._highest = max(self._highest, number)

    def listen_to_all(self, listener: ProcessListener) -> None:
        """Send what concerns no single process (process 0) to `listener`."""
        self._listeners[0] = listener

    def remove(self, number: int) -> None:
        self._listeners.pop(number, None)

    def forget_soon(self, number: int) -> None:
        """Have the supervisor forget a process; the request goes along with the next one that is sent."""
        self._to_forget.append(number)

    async def send(self, frame: bytes) -> None:
        """Send whole frames. Raises SandboxLost when the stream has ended or takes nothing.

        A cancelled caller does not cut a frame in two: the sending itself is shielded, and bounded.
        """
        stream = self._stream
        if stream is None or self.lost_reason is not None:
            raise SandboxLost(f"The sandbox is gone: {self.lost_reason or 'it was not connected'}.")
        forgotten, self._to_forget = self._to_forget, []
        frame = b"".join(map(requests.forget, forgotten)) + frame
        with anyio.move_on_after(SEND_TIMEOUT, shield=True) as scope:
            async with self._sending:
                try:
                    await stream.send(frame)
                except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
                    self._lose("its channel ended")
        if scope.cancelled_caught:
            self._lose("its supervisor takes no more requests")
        if self.lost_reason is not None:
            raise SandboxLost(f"The sandbox is gone: {self.lost_reason}.")


def _one_line(data: bytes) -> str:
    return " ".join(data.decode("utf-8", "replace").split())[:300]
