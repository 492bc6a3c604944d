"""The server's end of a sandbox's channel: one session with its supervisor, many processes.

No request is made twice: a broken stream is replaced (`link.py`), or all who wait learn that the sandbox is lost.
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

from taskcell.errors import ProtocolError, SandboxLost, TaskcellError
from taskcell.supervisor import events, requests
from taskcell.supervisor.decoder import Decoder
from taskcell.supervisor.link import Connect, IsGone, LastingStream
from taskcell.supervisor.tunnels import Tunnels
from taskcell.text import MESSAGE_SHOWN, shown

#: Seconds for an answer that the supervisor has at hand: a piece of a spool, the list of processes.
ANSWER_TIMEOUT = 15.0
#: Seconds without an answer to a ping, at most, after which another stream is opened: a busy machine may take as long.
PONG_WITHIN = 15.0
#: Seconds between two pings at most: what carries a stream may cut one that is idle for minutes.
PING_EVERY = 30.0
#: Pings within the time that the supervisor lives without a server, so that one or two may be late.
PINGS_IN_TTL = 3
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
    asked: float = field(default_factory=time.monotonic)


class Channel:
    """Speaks `docs/protocol.md` over the stream that `run` gets.

    Arguments:
        token: identifies the server to its supervisor; 16 to 64 bytes.
        orphan_ttl: seconds that the supervisor lives on without hearing from a server; 0 means for ever.
    """

    def __init__(self, token: bytes, orphan_ttl: float) -> None:
        self._token = token
        self._orphan_ttl = orphan_ttl
        self._decoder = Decoder()
        self._link = LastingStream(self._hello, self._take, orphan_ttl or math.inf)
        self.highest = 0
        self._listeners: dict[int, ProcessListener] = {}
        self._on_lost: list[Callable[[], None]] = []
        self._to_forget: list[int] = []
        #: Held during each READ.
        self.reading = anyio.Semaphore(READS_AT_ONCE)
        #: By the type of their answers, the oldest first: the supervisor answers in order.
        self._questions: dict[type, deque[_Question]] = {}
        #: Connections of the sandbox's loopback.
        self.tunnels = Tunnels(self.send)
        self.lost_reason: str | None = None
        #: Numbers of the processes of which something still runs: the main process or a descendant.
        self.living: set[int] = set()
        #: When (monotonic) `living` became empty, and what is called then; it must not block.
        self.quiet_since = time.monotonic()
        self.on_quiet: Callable[[], None] | None = None
        #: sudo has refused the password that the supervisor has for it.
        self.sudo_refused = False

    @property
    def alive(self) -> bool:
        """It was connected, and is not lost, though its stream may have broken and another one is being opened."""
        return self._link.welcome is not None and self.lost_reason is None

    @property
    def is_away(self) -> bool:
        """Its stream has broken, and another one is being opened."""
        return self._link.is_away

    @property
    def heard(self) -> float:
        """When (monotonic) the last bytes came from the supervisor."""
        return self._link.heard

    async def back(self, *, or_lost: bool) -> None:
        """Wait for another stream, or for its loss; one that stays away is lost to a call that must be answered."""
        await self._link.back()
        if or_lost and self.is_away:
            self.give_up("its engine does not answer")

    def renew(self) -> None:
        """Open another stream: the present one says nothing."""
        self._link.renew()

    # --- its life --------------------------------------------------------------------------------------------------

    async def run(
        self,
        connect: Connect,
        is_gone: IsGone,
        *,
        task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Hand out events until the sandbox is lost; started() is called at the first WELCOME.

        Raises TaskcellError when the first stream cannot be opened, and SandboxLost when no WELCOME comes.
        """
        failure: TaskcellError | None = None
        try:
            async with anyio.create_task_group() as beside:
                beside.start_soon(self._keep_alive)
                try:
                    self.give_up(await self._link.run(connect, is_gone, task_status.started))
                except TaskcellError as error:  # raised below: the task group would wrap it into an exception group
                    failure = error
                beside.cancel_scope.cancel()
        finally:
            self.give_up("its channel was closed")
        if failure is not None:
            raise failure
        if self._link.welcome is None:
            raise SandboxLost(f"The sandbox did not start: {self.lost_reason}.")

    async def _keep_alive(self) -> None:
        """Have the supervisor hear from its server, whether calls come or not, and notice a stream that is dead."""
        every = min(PING_EVERY, self._orphan_ttl / PINGS_IN_TTL) if self._orphan_ttl else PING_EVERY
        while True:
            await anyio.sleep(every)
            if not self.alive or self.is_away:
                continue
            if not (pings := self._questions.get(events.Pong)):
                self._questions.setdefault(events.Pong, deque()).append(_Question(None))
                await self._link.send(requests.ping())
            elif time.monotonic() - max(pings[0].asked, self._link.opened) > min(PONG_WITHIN, every / 2):
                self.renew()

    def _hello(self, session: int, received: int) -> bytes:
        return requests.hello(self._token, round(self._orphan_ttl * 1000), session, received)

    # --- what comes ------------------------------------------------------------------------------------------------

    def _take(self, data: bytes) -> None:
        for event in self._decoder.feed(data):
            self._hand_out(event)

    def _hand_out(self, event: events.Event) -> None:
        if isinstance(event, events.TunnelEvent):
            self.tunnels.take(event)
            return
        if isinstance(event, events.Acknowledged):
            self._link.acknowledged(event.place)
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

    def give_up(self, reason: str) -> None:
        """Treat the sandbox as lost: everybody who waits for something in it stops waiting."""
        if self.lost_reason is not None:
            return
        self.lost_reason = reason
        self._link.end()
        listeners, self._listeners = list(self._listeners.values()), {}
        for listener in listeners:
            listener.on_lost(reason)
        self.tunnels.lose(reason)
        for callback in self._on_lost:
            callback()
        asked, self._questions = self._questions, {}
        for question in (question for waiting in asked.values() for question in waiting):
            question.answered.set()

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
        self._check()
        question = _Question(on_answer)
        self._questions.setdefault(kind, deque()).append(question)
        await self.send(frame)
        if not await self.comes(question.answered, seconds) or self.lost_reason is not None:
            raise SandboxLost(f"The sandbox is gone: {self.lost_reason or 'its supervisor does not answer'}.")
        return question.parts

    async def comes(self, answered: anyio.Event, seconds: float) -> bool:
        """Wait for what the supervisor's answer sets, and return whether it came within `seconds`.

        A time without a stream does not count.
        """
        while True:
            with anyio.move_on_after(seconds):
                await answered.wait()
            if answered.is_set() or not self.is_away:
                return answered.is_set()
            await self.back(or_lost=True)

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
        self._check()
        self.highest = number = self.highest + 1
        self._listeners[number] = listener
        return number

    def listen(self, listener: ProcessListener, number: int) -> None:
        """Listen to a process that an earlier connection started."""
        self.reserve(number)
        self._listeners[number] = listener

    def reserve(self, number: int) -> None:
        """Give no later process this number: the supervisor still remembers a process with it."""
        self.highest = max(self.highest, number)

    def remove(self, number: int) -> None:
        self._listeners.pop(number, None)

    def forget_soon(self, number: int) -> None:
        """Have the supervisor forget a process; the request goes out with the next frame."""
        self._to_forget.append(number)

    def _check(self) -> None:
        if not self.alive:
            raise SandboxLost(f"The sandbox is gone: {self.lost_reason or 'it was not connected'}.")

    async def send(self, frame: bytes) -> None:
        """Send whole frames, as soon as there is a stream. Raises SandboxLost when the sandbox is lost."""
        self._check()
        forgotten, self._to_forget = self._to_forget, []
        await self._link.send(b"".join(map(requests.forget, forgotten)) + frame)
        self._check()

    async def shut_down(self, grace_ms: int) -> None:
        """Have the supervisor kill everything and end, with which this channel ends. Raises SandboxLost."""
        self._link.is_ending = True
        await self.send(requests.shutdown(grace_ms))
