"""What the tool `process` answers: a list of processes, or one with its output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from taskcell.files.answers import Picture
from taskcell.model import ProcessResult
from taskcell.schema.properties import described, object_schema, or_null
from taskcell.tools.describe import COUNT, RUN_SCHEMA

_LISTED = {
    "process_id": described("string", "Its name."),
    "status": described("string", "As for a run."),
    "exit_code": or_null("integer", "As for a run."),
    "tool": described("string", "What started it."),
    "command": described("string", "How its command begins."),
    "age_s": described("number", "Seconds since its start.", **COUNT),
    "output_bytes": described("integer", "Bytes it has written, as far as is known.", **COUNT),
    "pty": described("boolean", "Whether it has a terminal."),
}
REPORT_SCHEMA = object_schema(
    {
        "action": described("string", "What was done."),
        **RUN_SCHEMA["properties"],
        "lost_bytes": described("integer", "Bytes of the wanted output that are kept no more.", **COUNT),
        "more_bytes": described("integer", "Bytes after the cursor that are there already.", **COUNT),
        "written_bytes": described("integer", "Bytes of data that were taken.", **COUNT),
        "processes": {"type": "array", "description": "All of the task's.", "items": object_schema(_LISTED)},
    },
    required=["action", "task_id", "notes"],
)


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """A process in a list. Times in seconds; `output_bytes` of both streams."""

    process_id: str
    status: str
    exit_code: int | None
    tool: str
    command: str
    age_s: float
    output_bytes: int
    pty: bool


@dataclass(frozen=True, slots=True)
class ProcessReport:
    """What the tool `process` answers: a list, or one process with its output.

    Arguments:
        result: how the process stands; its cursors are where output goes on.
        lost_bytes: of the output that was asked for, kept no more. more_bytes: there already, after the cursors.
        written_bytes: of `data`; None where nothing was to be written.
    """

    task_id: str
    action: str
    processes: tuple[ProcessInfo, ...] = ()
    result: ProcessResult | None = None
    lost_bytes: int = 0
    more_bytes: int = 0
    written_bytes: int | None = None

    pictures: ClassVar[tuple[Picture, ...]] = ()

    @property
    def is_error(self) -> bool:
        """A command that failed is an error to whoever asks how it went, and not to whoever kills it."""
        return self.result is not None and self.result.is_error and self.action in ("poll", "wait")

    def structured(self) -> dict[str, Any]:
        if self.result is None:
            fields = ProcessInfo.__slots__
            listed = [{name: getattr(info, name) for name in fields} for info in self.processes]
            return {"task_id": self.task_id, "action": self.action, "processes": listed, "notes": []}
        written = {} if self.written_bytes is None else {"written_bytes": self.written_bytes}
        more = {"lost_bytes": self.lost_bytes, "more_bytes": self.more_bytes}
        return {**self.result.structured(), "action": self.action, **more, **written}

    def text(self) -> str:
        if self.result is not None:
            return self.result.text()
        lines = [
            f"{info.process_id}: {info.status}{'' if info.exit_code is None else f' {info.exit_code}'}, "
            f"{info.age_s:.0f} s old, {info.output_bytes:,} bytes of output: {info.tool} {info.command!r}"
            for info in self.processes
        ]
        return "\n".join(lines) or "The task has no processes."
