"""What the tool `process` returns: a list of processes, or one process with its output."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from taskcell.files.answers import Picture
from taskcell.model import ProcessResult, Status
from taskcell.process.until import Searched
from taskcell.schema.properties import object_schema, or_null, value_schema
from taskcell.text import ended, remarks, shown
from taskcell.tools.describe import NOT_NEGATIVE, RUN_SCHEMA

_LISTED = {
    "process_id": value_schema("string", "Name of the process."),
    "status": value_schema("string", "As for a command."),
    "exit_code": or_null("integer", "As for a command."),
    "tool": value_schema("string", "Tool that started it."),
    "command": value_schema("string", "Beginning of its command."),
    "age_s": value_schema("number", "Seconds since its start.", **NOT_NEGATIVE),
    "output_bytes": value_schema("integer", "Bytes written so far, as far as is known.", **NOT_NEGATIVE),
    "pty": value_schema("boolean", "Whether it has a terminal."),
    "alive": or_null("integer", "Its processes that run now, those that it started included; null if unknown."),
}
PROCESS_SCHEMA = object_schema(
    {
        "action": value_schema("string", "The action."),
        **RUN_SCHEMA["properties"],
        "lost_bytes": value_schema("integer", "Bytes of the requested output that are no longer kept.", **NOT_NEGATIVE),
        "more_bytes": value_schema("integer", "Bytes that are available after the cursor.", **NOT_NEGATIVE),
        "written_bytes": value_schema("integer", "Bytes of `data` that the process took.", **NOT_NEGATIVE),
        "matched": or_null("string", "Line in which the match of `until` begins; null if there is none."),
        "processes": {"type": "array", "description": "All processes of the task.", "items": object_schema(_LISTED)},
    },
    required=["action", "task_id", "notes"],
)


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """One process of a list.

    Arguments:
        age_s: seconds since its start.
        output_bytes: bytes of both streams.
        alive: how many processes run now of it and what it started; None if that is unknown.
    """

    process_id: str
    status: str
    exit_code: int | None
    tool: str
    command: str
    age_s: float
    output_bytes: int
    pty: bool
    alive: int | None


@dataclass(frozen=True, slots=True)
class ProcessReport:
    """What the tool `process` returns: a list, or one process with its output.

    Arguments:
        older: how many older processes a list leaves out.
        result: the state of the process; its cursors tell where to continue reading. None for a list.
        lost_bytes: bytes of the requested output that are no longer kept.
        more_bytes: bytes that are available after the cursors.
        written_bytes: bytes of `data` that the process took; None if there was nothing to write.
        until: how the wait for a match ended; None if the call named no pattern.
    """

    task_id: str
    action: str
    processes: tuple[ProcessInfo, ...] = ()
    older: int = 0
    result: ProcessResult | None = None
    lost_bytes: int = 0
    more_bytes: int = 0
    written_bytes: int | None = None
    until: Searched | None = None

    pictures: ClassVar[tuple[Picture, ...]] = ()

    @property
    def is_error(self) -> bool:
        """A failed command makes `poll` and `wait` errors, but not `kill`, which did what it was asked for."""
        return self.result is not None and self.result.is_error and self.action in ("poll", "wait")

    @property
    def extent(self) -> int:
        """Characters of the process's output, or processes of a list."""
        return len(self.processes) if self.result is None else self.result.extent

    def cut(self, most: int) -> ProcessReport:
        if self.result is not None:
            return replace(self, result=self.result.cut(most))
        kept = self.processes[len(self.processes) - min(most, len(self.processes)) :]
        return replace(self, processes=kept, older=self.older + len(self.processes) - len(kept))

    def structured(self) -> dict[str, Any]:
        if self.result is None:
            fields = ProcessInfo.__slots__
            listed = [{name: getattr(info, name) for name in fields} for info in self.processes]
            return {"task_id": self.task_id, "action": self.action, "processes": listed, "notes": self._notes()}
        written = {} if self.written_bytes is None else {"written_bytes": self.written_bytes}
        matched = {} if self.until is None else {"matched": self.until.line}
        more = {"lost_bytes": self.lost_bytes, "more_bytes": self.more_bytes}
        return {**self.result.structured(), "action": self.action, **more, **written, **matched}

    def said(self) -> str:
        if self.result is not None:
            return self.result.said()
        count, running = len(self.processes), sum(info.status == Status.RUNNING.value for info in self.processes)
        commands = f"{count} command{'' if count == 1 else 's'}, {running} running"
        return remarks(commands if count else "no commands", self._notes())

    def _notes(self) -> list[str]:
        return [f"There is no room here for {self.older} older ones."] if self.older else []

    def output(self) -> str:
        if self.result is not None:
            return self.result.output()
        lines = [
            f"{info.process_id}: {info.status}{'' if info.exit_code is None else f' {info.exit_code}'}, "
            f"{_alive(info.alive)}{info.age_s:.0f} s old, "
            f"{info.output_bytes:,} bytes of output: {info.tool} {shown(info.command, len(info.command))}"
            for info in self.processes
        ]
        return ended("\n".join(lines))


def _alive(count: int | None) -> str:
    if count is None:
        return "an unknown number alive, "
    return f"{count} alive, " if count else ""
