"""One process of a sandbox as the server remembers it, and its tag, from which a later server reads that back."""

from __future__ import annotations

import json
import math
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import anyio

from taskcell.model import Command
from taskcell.process.process import Process
from taskcell.supervisor import protocol

#: Characters of a command that are kept, to tell processes apart; with its other fields a tag stays below TAG_MAX.
SHOWN_MAX = 120
#: Random bytes of a process's key: 128 bits cannot be guessed.
KEY_BYTES = 16
_PROCESS_ID = re.compile(r"p([1-9][0-9]{0,11})")


@dataclass(frozen=True, slots=True)
class About:
    """What the server knows about a process beyond what the supervisor reports.

    It is stored in the process's tag, so that a later server can read it back.

    Arguments:
        text: how the command begins. It may hold a secret: show it to the command's own principal only.
        timeout: seconds; `math.inf` without one.
        started: seconds since the epoch.
        takes_input: `process` may write to its standard input.
        strip_ansi: its call wanted output without control sequences.
        key: a secret name of this very process: another process with the same `process_id` has another key.
        given: names of the variables that its call alone set; None if they are too many for a tag.
        is_foreground: a terminal command; where it ends may be where the next one starts.
        linger: seconds that it lives on without the program that reads its output as it comes. None: it has no such
            reader.
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
    is_foreground: bool = False
    linger: float | None = None

    @classmethod
    def of(cls, command: Command, process_id: str, linger: float | None = None) -> About:
        """Describe a command that is about to start, with a new key."""
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
            is_foreground=command.profile.kind == "terminal" and not command.background,
            linger=linger,
        )

    @property
    def has_timeout(self) -> bool:
        """Whether it is killed after a time, and does not run as long as its sandbox."""
        return math.isfinite(self.timeout)

    def tag(self) -> bytes:
        """Encode it in at most TAG_MAX bytes."""
        values = {name: getattr(self, name) for name in self.__slots__}
        if self.linger is None:  # most commands: a server that does not know the word reads their tags
            del values["linger"]
        tag = _encoded(values)
        return tag if len(tag) <= protocol.TAG_MAX else _encoded({**values, "given": None})

    @classmethod
    def from_tag(cls, tag: bytes) -> About | None:
        """Decode a tag; None if this program did not write it."""
        try:
            values = json.loads(tag)
            given = values.pop("given", ())
            read = cls(**values, given=None if given is None else tuple(given))
        except (ValueError, TypeError, AttributeError, RecursionError):
            return None
        words = (read.process_id, read.tool, read.text, read.key)
        numbers = (read.timeout, read.started, read.linger or 0)
        flags = (read.is_terminal, read.takes_input, read.strip_ansi, read.is_foreground)
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
    """The number in a process's name: 3 for `p3`, 0 if it is not such a name."""
    match = _PROCESS_ID.fullmatch(process_id)
    return int(match[1]) if match else 0


@dataclass(slots=True, eq=False)
class Record:
    """A process and what the server knows about it.

    Arguments:
        began: when it started (seconds of the monotonic clock): the wall clock, which is shown, may jump.
        lasted: seconds that it ran; 0 while it runs.
        ended: seconds since the epoch; 0 while it runs.
        on_end: called at its end or loss, before anything else is read from the channel; it must not block.
        is_handed_off: it goes on, or went on, after its call's answer.
        alive: how many processes of its tree were alive at its end, or at the last count; None: unknown.
        may_move: the next terminal command may start elsewhere because of it.
        unkept: why the next terminal command does not start where this one ended; empty if it does or never would.
        end_note: a sentence about where it ended.
    """

    about: About
    process: Process
    began: float = field(default_factory=time.monotonic)
    lasted: float = 0.0
    ended: float = 0.0
    on_end: Callable[[], None] | None = None
    is_handed_off: bool = False
    alive: int | None = 0
    may_move: bool = False
    unkept: str = ""
    end_note: str = ""
    _is_told: bool = False
    _telling: anyio.Event | None = None

    @property
    def age(self) -> float:
        """Seconds since it started."""
        return time.monotonic() - self.began

    @property
    def is_cancelled(self) -> bool:
        """It was killed because its call was cancelled."""
        return self.process.exit is not None and self.process.exit.reason is protocol.Reason.CANCEL

    def tell(self) -> None:
        """Note that an answer reported its end."""
        self._is_told = True
        if self._telling is not None:
            self._telling.set()

    async def told(self) -> None:
        """Wait until an answer has reported its end."""
        if not self._is_told:
            self._telling = self._telling or anyio.Event()
            await self._telling.wait()
