"""What happens to tasks, for whoever follows it, such as a client that wants to see a log.

No output, no standard input, no values of variables, and no command but for its beginning in a note that the task's
next answer says as well: what a client is told, it may keep.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from taskcell.errors import Denied, ErrorCode, MustAsk, TaskcellError
from taskcell.model import DEFAULT_TASK, Status, TaskKey, ToolCall
from taskcell.process.record import Record
from taskcell.process.result import status_of


class Level(IntEnum):
    """How much an event matters; the names are those of syslog (RFC 5424), which MCP uses."""

    DEBUG = 0
    INFO = 1
    NOTICE = 2
    WARNING = 3
    ERROR = 4


@dataclass(frozen=True, slots=True)
class TaskEvent:
    """Something that happened to a task.

    Arguments:
        kind: a word for programs.
        sentence: for a person.
        tool: whose call it was about; empty where it was about no call.
        fields: more for programs, ready for JSON.
    """

    task: TaskKey
    level: Level
    kind: str
    sentence: str
    tool: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)


#: What a person who watches should know of the refusals of calls. Others are a model's mistakes, which it mends itself.
_REFUSALS = {
    ErrorCode.DENIED: Level.WARNING,
    ErrorCode.NO_CAPACITY: Level.WARNING,
    ErrorCode.IMAGE_MISSING: Level.ERROR,
    ErrorCode.ENGINE_UNAVAILABLE: Level.ERROR,
    ErrorCode.LOST: Level.ERROR,
    ErrorCode.INTERNAL: Level.ERROR,
}
_ENDS = {
    Status.LOST: (Level.ERROR, "was lost with its sandbox"),
    Status.OOM_KILLED: (Level.WARNING, "was killed: its sandbox had no memory left"),
    Status.TIMED_OUT: (Level.WARNING, "was killed at its timeout"),
    Status.CANCELLED: (Level.INFO, "was cancelled"),
    Status.KILLED: (Level.INFO, "was killed"),
}


class News:
    """Hands each event to everyone who follows at that moment. A follower returns at once and raises nothing."""

    def __init__(self) -> None:
        self._followers: list[Callable[[TaskEvent], None]] = []

    @contextmanager
    def followed(self, follower: Callable[[TaskEvent], None]) -> Iterator[None]:
        """Have a follower hear each event while this is entered."""
        self._followers.append(follower)
        try:
            yield
        finally:
            self._followers.remove(follower)

    def tell(self, event: TaskEvent) -> None:
        for follower in tuple(self._followers):
            follower(event)

    def noted(self, task: TaskKey, notes: Iterable[str]) -> None:
        """A task's sandbox was replaced, its files were put back, or something else that its next answer says."""
        for note in notes if self._followers else ():
            self.tell(TaskEvent(task, Level.NOTICE, "sandbox", note))

    def refused(self, call: ToolCall, error: TaskcellError) -> None:
        """A call did not run."""
        level = Level.NOTICE if isinstance(error, MustAsk) else _REFUSALS.get(error.code)
        if level is None or not self._followers:
            return
        kind = "refused"
        if isinstance(error, Denied):
            kind = "confirmation" if isinstance(error, MustAsk) else "denied"
        self.tell(TaskEvent(_task_of(call), level, kind, str(error), call.tool, error.fields()))

    def called(self, call: ToolCall, outcome: str, seconds: float) -> None:
        """A call has its answer."""
        if self._followers:
            said = f"A call of {call.tool} was {outcome} after {seconds:.1f} s."
            fields = {"outcome": outcome, "duration_ms": round(seconds * 1000)}
            self.tell(TaskEvent(_task_of(call), Level.DEBUG, "call", said, call.tool, fields))

    def ended(self, task: TaskKey, record: Record, *, closed: bool, was_awaited: bool) -> None:
        """A process has ended, or was lost.

        Arguments:
            closed: as in SandboxFacts.
            was_awaited: a call's answer says so.
        """
        if not self._followers:
            return
        about = record.about
        status, code = status_of(record, closed=closed)
        usual = Level.DEBUG if was_awaited else Level.INFO
        level, how = _ENDS.get(status, (usual, f"has ended with exit code {code}"))
        fields = {"process_id": about.process_id, "status": status.value, "exit_code": code}
        sentence = f"The command {about.process_id} of {about.tool} {how}."
        self.tell(TaskEvent(task, level, "end", sentence, about.tool, fields))


def _task_of(call: ToolCall) -> TaskKey:
    """The task that a call names, which may not have been checked."""
    named = call.arguments.get("task_id")
    return TaskKey(call.principal, named if isinstance(named, str) and named else DEFAULT_TASK)
