"""The server's end of a sandbox's channel: one byte stream, many processes.

Nothing here is retried: when the stream breaks, every process that is waited for learns that the sandbox is lost.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import anyio
import anyio.abc

from taskcell.errors import ProtocolError, SandboxLost
from taskcell.raw_stream import SendsNow
from taskcell.supervisor import events, protocol, requests
from taskcell.supervisor.decoder import Decoder
from taskcell.supervisor.tunnels import Tunnels
from taskcell.text import MESSAGE_SHOWN, shown

#: Seconds. The supervisor's loop never blocks: one that takes no bytes for so long does not run any more.
SEND_TIMEOUT = 10.0
#: Seconds from the stream's opening to WELCOME; a fresh exec on a busy machine takes up to some seconds.
WELCOME_TIMEOUT = 20.0
#: Seconds for an answer that the supervisor has at hand: a piece of a spool, the list of processes.
ANSWER_TIMEOUT = 15.0
#: How engines report, in the stream itself, that an exec failed (Docker with runc and crun).
ENGINE_FAILURE = (b"OCI runtime", b"unable to start", b"crun:")
#: Bytes to receive at once: what an engine's socket holds. Files that pass by wake the server less often.
RECEIVE_SIZE = 1 << 18
#: READs that may be unanswered at once: the supervisor ends a connection that makes it hold more than 4 MiB.
READS_AT_ONCE = 8

#: The type of one answer's frames.
Answer = TypeVar("Answer", bound=events.Event)


class ProcessListener(Protocol):
    """Receives one process's events in order, in the task that reads the channel; it must not block."""

    def on_event(self, event: events.Event) -> None: ...

    def on_lost(self, reason: str) -> None: ...


@dataclass(slots=True, eq=False)
class _Question:
    """A request without an answer yet. Its asker may have given up; the answer comes all the same."""

    on_answer: Callable[[Sequence[Any]], None] | None
    parts: list[Any] = field(default_factory=list)
    answered: anyio.Event = field(default_factory=anyio.Event)


class Channel:
    """Speaks `docs/protocol.md` over the stream that `run` gets.

    Arguments:
        token: identifies the server to its supervisor; 16 to 64 bytes.
        orphan_ttl: seconds that the supervisor lives on without a server.
    """

    def __init__(self, token: bytes, orphan_ttl: float) -> None:
        self._token = token
        self._orphan_ttl_ms = round(orphan_ttl * 1000)
        self._highest = 0
        self._listeners: dict[int, ProcessListener] = {}
        self._sending = anyio.Lock(fast_acquire=True)
        self._stream: anyio.abc.ByteStream | None = None
        self._send_now: Callable[[bytes], int] | None = None
        self._on_lost: list[Callable[[], None]] = []
        self._to_forget: list[int] = []
        #: Held during each READ.
        self.reading = anyio.Semaphore(READS_AT_ONCE)
        #: By the type of their answers, the oldest first: the supervisor answers in order.
        self._questions: dict[type, deque[_Question]] = {}
        #: Connections of the sandbox's loopback.
        self.tunnels = Tunnels(self.send)
        self.welcome: events.Welcome | None = None
        self.lost_reason: str | None = None
        #: Numbers of the processes of which something still runs: the main process or a descendant.
        self.living: set[int] = set()
        #: When (monotonic) `living` became empty, and what is called then; it must not block.
        self.quiet_since = time.monotonic()
        self.on_quiet: Callable[[], None] | None = None
        #: sudo has refused the password that the supervisor has for it.
        self.sudo_refused = False
        #: When (monotonic) the last bytes came from the supervisor.
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
        """Send HELLO, then hand out events until the stream ends; started() is called at WELCOME.

        Raises SandboxLost when no WELCOME comes.
        """
        self._stream = stream
        self._send_now = stream.send_now if isinstance(stream, SendsNow) else None
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
        """Kept apart from `run` so that received bytes are freed before the next receive blocks."""
        if self.welcome is None and data.startswith(ENGINE_FAILURE):
            raise ProtocolError(f"the engine could not start it: {shown(_one_line(data), MESSAGE_SHOWN)}")
        for event in decoder.feed(data):
            if self.welcome is None:
                self._greet(event)
            else:
                self._hand_out(event)

    def _greet(self, event: events.Event) -> None:
        if isinstance(event, events.Error):
            raise ProtocolError(f"the supervisor refused the connection: {shown(event.message, MESSAGE_SHOWN)}")
        if not isinstance(event, events.Welcome) or event.version != protocol.VERSION:
            raise ProtocolError("the supervisor did not greet as this version does")
        self.welcome = event

    def _hand_out(self, event: events.Event) -> None:
        if isinstance(event, events.TunnelEvent):
            self.tunnels.take(event)
            return
        if isinstance(event, events.Error):
            raise ProtocolError(f"the supervisor ended the connection: {shown(event.message, MESSAGE_SHOWN)}")
        if isinstance(event, events.Spawned) and event.process in self._listeners:
            self.living.add(event.process)
        elif isinstance(event, events.Gone) and event.process in self.living:
            self.living.remove(event.process)
            self.quiet_since = time.monotonic()
            if not self.living and self.on_quiet is not None:
                self.on_quiet()
        if not event.process:
            self._answer(event)
        listener = self._listeners.get(event.process)
        if listener is not None:
            listener.on_event(event)

    def _answer(self, event: events.Event) -> None:
        """Give an event to the oldest question of its kind, and end the question when its answer is whole."""
        waiting = self._questions.get(type(event))
        if not waiting:
            self.sudo_refused = self.sudo_refused or isinstance(event, events.Sudo)
            return
        waiting[0].parts.append(event)
        if isinstance(event, events.Listing) and not event.is_last:
            return
        question = waiting.popleft()
        if question.on_answer is not None:
            question.on_answer(question.parts)
        question.answered.set()

    def _lose(self, reason: str) -> None:
        if self.lost_reason is not None:
            return
        self.lost_reason = reason
        listeners, self._listeners = list(self._listeners.values()), {}
        for listener in listeners:
            listener.on_lost(reason)
        self.tunnels.lose(reason)
        for callback in self._on_lost:
            callback()
        asked, self._questions = self._questions, {}
        for question in (question for waiting in asked.values() for question in waiting):
            question.answered.set()

    def give_up(self, reason: str) -> None:
        """Treat the sandbox as lost: everybody who waits for something in it stops waiting."""
        self._lose(reason)

    async def ask(
        self,
        frame: bytes,
        kind: type[Answer],
        seconds: float,
        on_answer: Callable[[Sequence[Answer]], None] | None = None,
    ) -> Sequence[Answer]:
        """Send a request that concerns no single process, and return its answer's frames: one, for LIST maybe more.

        Raises SandboxLost, also when the answer is not whole within `seconds`.

        Arguments:
            on_answer: called with the frames by the task that reads the channel, before it takes the next event.
        """
        question = _Question(on_answer)
        self._questions.setdefault(kind, deque()).append(question)
        await self.send(frame)
        with anyio.move_on_after(seconds) as bound:
            await question.answered.wait()
        if bound.cancelled_caught or self.lost_reason is not None:
            raise SandboxLost(f"The sandbox is gone: {self.lost_reason or 'its supervisor does not answer'}.")
        return question.parts

    @property
    def is_asked(self) -> bool:
        """A ping has no answer yet."""
        return bool(self._questions.get(events.Pong))

    async def ping(self) -> None:
        """Wait until the supervisor answers; the caller bounds the wait. Raises SandboxLost."""
        await self.ask(requests.ping(), events.Pong, math.inf)

    def when_lost(self, callback: Callable[[], None]) -> None:
        """Call `callback` once when the channel is lost, at once if it is lost already; it must not block."""
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
        """Listen to a process that an earlier connection started."""
        self.reserve(number)
        self._listeners[number] = listener

    def reserve(self, number: int) -> None:
        """Give no later process this number: the supervisor still remembers a process with it."""
        self._highest = max(self._highest, number)

    def remove(self, number: int) -> None:
        self._listeners.pop(number, None)

    def forget_soon(self, number: int) -> None:
        """Have the supervisor forget a process; the request goes out with the next frame."""
        self._to_forget.append(number)

    async def send(self, frame: bytes) -> None:
        """Send whole frames. Raises SandboxLost when the stream has ended or takes no bytes.

        Sending is shielded and bounded, so that a cancelled caller does not cut a frame in two.
        """
        stream = self._stream
        if stream is None or self.lost_reason is not None:
            raise SandboxLost(f"The sandbox is gone: {self.lost_reason or 'it was not connected'}.")
        if self._to_forget:
            forgotten, self._to_forget = self._to_forget, []
            frame = b"".join(map(requests.forget, forgotten)) + frame
        # Most frames go at once. A bound on a wait that there is not costs more than they do.
        if self._send_now is not None and not self._sending.locked():
            try:
                sent = self._send_now(frame)
            except OSError:
                self._lose("its channel ended")
                sent = 0
            if sent == len(frame):
                return
            frame = frame[sent:]
        with anyio.move_on_after(SEND_TIMEOUT, shield=True) as scope:
            async with self._sending:  # it was free: nobody comes between the two parts of a frame
                try:
                    await stream.send(frame)
                except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
                    self._lose("its channel ended")
        if scope.cancelled_caught:
            self._lose("its supervisor takes no more requests")
        if self.lost_reason is not None:
            raise SandboxLost(f"The sandbox is gone: {self.lost_reason}.")


def _one_line(data: bytes) -> str:
    return " ".join(data.decode("utf-8", "replace").split())
