"""The tool `process`: what a model reads of it, and what its arguments ask for."""

from __future__ import annotations

import math
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from taskcell.errors import BadArgument
from taskcell.model import Command, Profile, TaskKey, ToolCall
from taskcell.schema.arguments import Arguments, as_utf8, nearest
from taskcell.schema.properties import COLS, ROWS, STRIP_ANSI, TASK_ID, ToolAnnotations, plain_number
from taskcell.tools.binding import task_key

NAME = "process"
#: Bytes of one write: what a process may have waiting before it takes more.
MAX_DATA = 1 << 16
#: A cursor that any client can hold: the largest integer that is exact in JavaScript.
MAX_CURSOR = (1 << 53) - 1

Action = Literal["list", "poll", "wait", "write", "close_stdin", "signal", "kill", "resize"]
_ACTIONS = ["list", "poll", "wait", "write", "close_stdin", "signal", "kill", "resize"]

DESCRIPTION = (
    "Look after commands that go on: those started with background, and those that were still running when a call had "
    "waited long enough. Output is asked for by cursor: each answer has the one to go on from. What a command printed "
    "can be asked for again until its sandbox closes or 64 newer ones have finished."
)


@dataclass(frozen=True, slots=True)
class ProcessAction:
    """What the tool `process` is asked to do.

    Arguments:
        process_id: of one process; empty for `list` alone.
        cursor, stderr_cursor: bytes of the streams from which on output is wanted; None means head and tail of all.
        wait: seconds.
        data: for standard input. signal: its number. size: rows and columns.
    """

    task: TaskKey
    action: Action
    process_id: str
    cursor: int | None
    stderr_cursor: int
    wait: float
    data: str = field(repr=False)
    signal: int
    size: tuple[int, int]
    strip_ansi: bool

    @property
    def is_about_all(self) -> bool:
        """Without a cursor, head and tail of all output is answered, not just what is new."""
        return self.cursor is None and self.action in ("poll", "wait", "kill")

    def commands(self, tool: str, profile: Profile) -> tuple[Command, ...]:
        """What the policy's rules judge: text that is written may be as good as a command.

        It is judged as one of this tool, and as one of the tool that started the process, with its profile.
        """
        if self.action != "write":
            return ()
        return tuple(Command(self.task, judged, profile, (), self.data) for judged in (NAME, tool))


def schema(wait: float, max_wait: float) -> dict[str, Any]:
    """The schema of `process`. Times in seconds."""
    properties = {
        "action": {
            "type": "string",
            "enum": _ACTIONS,
            "description": (
                "list: all of the task's processes. poll: what is new. wait: until its end. write: data to its "
                "standard input. close_stdin: end that. signal: send one. kill: it and all it started. resize: its "
                "terminal."
            ),
        },
        "process_id": {"type": "string", "minLength": 1, "description": "Such as p1; all actions but list need it."},
        "task_id": TASK_ID,
        "cursor": {
            "type": "integer",
            "minimum": 0,
            "maximum": MAX_CURSOR,
            "description": (
                "Where output is wanted from: the cursor of an earlier answer, or 0. Without it, poll, wait and kill "
                "answer the head and the tail of all output so far, and the others what is new."
            ),
        },
        "stderr_cursor": {
            "type": "integer",
            "minimum": 0,
            "maximum": MAX_CURSOR,
            "default": 0,
            "description": "The same for the standard error of a skill's process, beside cursor.",
        },
        "wait": {
            "type": "number",
            "minimum": 0,
            "maximum": plain_number(max_wait),
            "description": (
                f"Seconds that wait waits for the end (default {plain_number(wait):g}), and poll and write for output "
                "(default 0)."
            ),
        },
        "data": {"type": "string", "description": "Text for write, with its line breaks."},
        "signal": {"type": "string", "minLength": 1, "description": "Such as INT, TERM, HUP or USR1."},
        "rows": ROWS,
        "cols": COLS,
        "strip_ansi": STRIP_ANSI,
    }
    return {"type": "object", "required": ["action"], "additionalProperties": False, "properties": properties}


@dataclass(frozen=True)
class ProcessTool:
    """The tool `process`, which starts nothing. Times in seconds."""

    name: str
    title: str
    description: str
    input_schema: Mapping[str, Any]
    annotations: ToolAnnotations
    wait: float
    _arguments: Arguments = field(repr=False, compare=False)

    def bind(self, call: ToolCall) -> ProcessAction:
        """Check a call's arguments. Raises BadArgument."""
        values = self._arguments.check(self.name, call.arguments)
        action: Action = values["action"]
        process_id = values.get("process_id", "")
        if action != "list" and not process_id:
            raise BadArgument(f"The action '{action}' needs 'process_id'; the action 'list' shows them.")
        wait = values.get("wait", self.wait if action == "wait" else 0)
        if not math.isfinite(wait):
            raise BadArgument("'wait' must be a finite number of seconds.")
        return ProcessAction(
            task=task_key(call, values),
            action=action,
            process_id=process_id,
            cursor=values.get("cursor"),
            stderr_cursor=values.get("stderr_cursor", 0),
            wait=float(wait),
            data=_data(action, values),
            signal=_signal(action, values),
            size=(values.get("rows", ROWS["default"]), values.get("cols", COLS["default"])),
            strip_ansi=values.get("strip_ansi", False),
        )


def process_tool(wait: float, max_wait: float) -> ProcessTool:
    """The tool, with the longest and the usual time to wait, in seconds."""
    made = schema(wait, max_wait)
    return ProcessTool(
        name=NAME,
        title="Process",
        description=DESCRIPTION,
        input_schema=made,
        annotations=ToolAnnotations(read_only=False, destructive=True, idempotent=False, open_world=False),
        wait=wait,
        _arguments=Arguments(made),
    )


def _data(action: Action, values: Mapping[str, Any]) -> str:
    data: str | None = values.get("data")
    if action != "write":
        if data:
            raise BadArgument(f"'data' is for the action 'write', not for '{action}'.")
        return ""
    if not data:
        raise BadArgument("The action 'write' needs 'data': the text, with its line break.")
    size = len(as_utf8("data", data))
    if size > MAX_DATA:
        raise BadArgument(f"'data' is {size} bytes long, and at most {MAX_DATA} can be written at once; write parts.")
    return data


def _signal(action: Action, values: Mapping[str, Any]) -> int:
    name: str | None = values.get("signal")
    if action != "signal":
        if name:
            raise BadArgument(f"'signal' is for the action 'signal', not for '{action}'.")
        return 0
    if not name:
        raise BadArgument("The action 'signal' needs 'signal', such as INT or TERM.")
    known = {known.name.removeprefix("SIG"): int(known) for known in signal.Signals}
    word = name.upper().removeprefix("SIG")
    number = known.get(word, int(word) if word.isascii() and word.isdigit() and len(word) < 3 else 0)
    if not 1 <= number <= signal.SIGRTMAX:
        raise BadArgument(f"'signal' must be the name of a signal, such as INT or TERM{nearest(word, known)}.")
    return number
