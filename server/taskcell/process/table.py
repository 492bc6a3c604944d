"""The processes of one sandbox by their names, for as long as they can be asked for."""

from __future__ import annotations

import json
import re
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import anyio

from taskcell.errors import SandboxLost
from taskcell.model import Command
from taskcell.process.process import ANSWER_TIMEOUT, Process
from taskcell.supervisor import events, protocol, requests
from taskcell.supervisor.channel import Channel

#: Finished processes that can be asked for; the supervisor remembers as many.
FINISHED_MAX = 64
#: Characters of a command that are kept to tell processes apart; with what else a tag holds it stays below its bound.
SHOWN_MAX = 120
#: Random bytes of a process's key: as many as are thought beyond guessing.
KEY_BYTES = 16
_PROCESS_ID = re.compile(r"p([1-9][0-9]{0,11})")


@dataclass(frozen=True, slots=True)
class About:
    """What is remembered of a process beside what its supervisor tells; its tag, so that a later server knows it too.

    Arguments:
        text: the command's beginning. It may hold a secret: it goes to whoever gave the command, and nowhere else.
        timeout: seconds. started: seconds since the epoch.
        takes_input: `process` may write to it. strip_ansi: its call wanted output without control sequences.
        key: nobody can guess it; who knows it was told of this very process, and not of another by the same name.
        given: names of variables that its call alone was given; None where they are too many to remember.
    """

    process_id: str
    tool: str
    text: str = field(repr=False)
    timeout: float
    started: float
    kind: Literal["terminal", "skill"]
    is_terminal: bool = False
    takes_input: bool = False
    strip_ansi: bool = False
    key: str = field(default="", repr=False)
    given: tuple[str, ...] | None = ()

    @classmethod
    def of(cls, command: Command, process_id: str) -> About:
        return cls(
            process_id=process_id,
            tool=command.tool,
            text=_shown(command.text),
            timeout=command.timeout,
            started=round(time.time(), 3),
            kind=command.profile.kind,
            is_terminal=command.pty is not None,
            takes_input=command.takes_input,
            strip_ansi=command.strip_ansi,
            key=secrets.token_urlsafe(KEY_BYTES),
            given=(*(() if command.pty is None else ("TERM",)), *command.env),
        )

    def tag(self) -> bytes:
        """At most TAG_MAX bytes."""
        values = {name: getattr(self, name) for name in self.__slots__}
        tag = _encoded(values)
        return tag if len(tag) <= protocol.TAG_MAX else _encoded({**values, "given": None})

    @classmethod
    def from_tag(cls, tag: bytes) -> About | None:
        """None for a tag that is none of ours."""
        try:
            values = json.loads(tag)
            given = values.pop("given", ())
            read = cls(**values, given=None if given is None else tuple(given))
        except (ValueError, TypeError, AttributeError, RecursionError):
            return None
        words = (read.process_id, read.tool, read.text, read.key)
        numbers = (read.timeout, read.started)
        flags = (read.is_terminal, read.takes_input, read.strip_ansi)
        well_formed = (
            all(isinstance(word, str) for word in (*words, *(read.given or ())))
            and all(isinstance(number, int | float) for number in numbers)
            and all(isinstance(flag, bool) for flag in flags)
            and read.kind in ("terminal", "skill")
            and _PROCESS_ID.fullmatch(read.process_id)
        )
        return read if well_formed else None


#: Made once: `json.dumps` would make one for each command.
_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)


def _encoded(values: dict[str, object]) -> bytes:
    return _ENCODER.encode(values).encode("utf-8", "replace")


def _shown(text: str) -> str:
    return text if len(text) <= SHOWN_MAX else text[: SHOWN_MAX - 1] + "…"


def process_number(process_id: str) -> int:
    """3 for `p3`; 0 for what is no process's name."""
    match = _PROCESS_ID.fullmatch(process_id)
    return int(match[1]) if match else 0


@dataclass(slots=True, eq=False)
class Record:
    """A process, and what is remembered of it."""

    about: About
    process: Process
    ended: float = 0.0
    _is_told: bool = False
    _telling: anyio.Event | None = None

    def tell(self) -> None:
        """Its end was answered to somebody."""
        self._is_told = True
        if self._telling is not None:
            self._telling.set()

    async def told(self) -> None:
        """Wait until its end was answered to somebody."""
        if not self._is_told:
            self._telling = self._telling or anyio.Event()
            await self._telling.wait()


class Registry:
    """Holds the running processes, and the FINISHED_MAX that ended last."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._records: dict[str, Record] = {}
        self._finished: deque[Record] = deque()

    def __iter__(self) -> Iterator[Record]:
        """In the order in which they were started."""
        return iter(list(self._records.values()))

    def get(self, process_id: str) -> Record | None:
        return self._records.get(process_id)

    @property
    def running(self) -> int:
        """How many have a main process that lives."""
        return len(self._records) - len(self._finished)

    @property
    def highest(self) -> int:
        """The number of the newest process's name; 0 without one."""
        return max((process_number(name) for name in self._records), default=0)

    def add(self, about: About, output_chars: int) -> Record:
        """A record for a process that is about to be started."""

        def on_end() -> None:
            self._end(record)

        record = Record(about, Process(self._channel, output_chars, on_end))
        self._records[about.process_id] = record
        return record

    def _end(self, record: Record) -> None:
        record.ended = time.time()
        if self._records.get(record.about.process_id) is not record:
            return
        self._finished.append(record)
        while len(self._finished) > FINISHED_MAX:
            self.remove(self._finished[0])

    def remove(self, record: Record) -> None:
        """Forget a process, here and in the supervisor."""
        if self._records.pop(record.about.process_id, None) is None:
            return
        if record in self._finished:
            self._finished.remove(record)
        record.process.close()

    async def adopt(self) -> None:
        """Take up the processes that an earlier server has left in the sandbox. Raises SandboxLost."""
        await Listing(self._channel, self._take_up).fetch()

    def _take_up(self, entries: Sequence[events.Listed]) -> None:
        """In the reading task itself: an EXIT may follow at once, and must find its listener."""
        # Finished ones first, and in the order of their age: the oldest are the first to be forgotten.
        for listed in sorted(entries, key=lambda entry: (entry.state == protocol.ProcessState.RUNNING, -entry.age_ms)):
            about = About.from_tag(listed.tag)
            self._channel.reserve(listed.process)
            if listed.state is not protocol.ProcessState.GONE:
                self._channel.living.add(listed.process)
            if about is not None and about.process_id not in self._records:
                record = self.add(about, 0)
                record.process.take_up(listed, stdin_open=about.takes_input)
                record.ended = about.started + listed.duration_us / 1e6
            elif listed.state is not protocol.ProcessState.RUNNING:
                self._channel.forget_soon(listed.process)
        by_start = sorted(self._records.values(), key=lambda record: process_number(record.about.process_id))
        self._records = {record.about.process_id: record for record in by_start}


class Listing:
    """Asks the supervisor once for all the processes that it remembers.

    Arguments:
        on_entries: called with them by the reading task, before it takes the next event.
    """

    def __init__(self, channel: Channel, on_entries: Callable[[Sequence[events.Listed]], None] | None = None) -> None:
        self._channel = channel
        self._on_entries = on_entries
        self._answered = anyio.Event()
        self._entries: tuple[events.Listed, ...] = ()

    def on_event(self, event: events.Event) -> None:
        if isinstance(event, events.Listing):
            self._entries += event.entries
            if event.is_last:
                if self._on_entries is not None:
                    self._on_entries(self._entries)
                self._answered.set()

    def on_lost(self, reason: str) -> None:
        self._answered.set()

    async def fetch(self) -> tuple[events.Listed, ...]:
        """Raises SandboxLost, also when nothing comes within ANSWER_TIMEOUT."""
        self._channel.listen_to_all(self)
        await self._channel.send(requests.list_processes())
        with anyio.move_on_after(ANSWER_TIMEOUT) as bound:
            await self._answered.wait()
        if bound.cancelled_caught or not self._channel.alive:
            raise SandboxLost("The sandbox is gone: its supervisor does not answer.")
        return self._entries


class LastState:
    """Asks the supervisor where the last terminal command ended."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._answered = anyio.Event()
        self._state: events.State | None = None

    def on_event(self, event: events.Event) -> None:
        if isinstance(event, events.State):
            self._state = event
            self._answered.set()

    def on_lost(self, reason: str) -> None:
        self._answered.set()

    async def fetch(self) -> events.State:
        """Raises SandboxLost, also when nothing comes within ANSWER_TIMEOUT."""
        self._channel.listen_to_all(self)
        await self._channel.send(requests.state())
        with anyio.move_on_after(ANSWER_TIMEOUT):
            await self._answered.wait()
        if self._state is None:
            raise SandboxLost("The sandbox is gone: its supervisor does not answer.")
        return self._state
