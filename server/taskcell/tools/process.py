"""The tool `process`: what a model reads about it, and how its arguments are checked."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from taskcell.config.settings import Settings
from taskcell.environment import TERMINAL
from taskcell.errors import BadArgument
from taskcell.model import Command, Profile, ToolCall
from taskcell.process.table import FINISHED_MAX
from taskcell.profile.build import terminal_profile
from taskcell.schema.arguments import as_utf8, nearest, seconds
from taskcell.schema.forms import ONLY_WHEN
from taskcell.schema.properties import COLS, ROWS, STRIP_ANSI, TASK_ID, object_schema, plain_number, value_schema
from taskcell.tools.binding import task_key
from taskcell.tools.process_calls import PROCESS, Action, ProcessAction, ProcessCalls
from taskcell.tools.process_report import PROCESS_SCHEMA
from taskcell.tools.tool import Access, BuiltIn, Tool, ToolAnnotations, ToolReport, Watch

#: Bytes of one write: as much input as may wait for a process to read it.
MAX_DATA = 1 << 16
#: The largest integer that is exact in JavaScript, so that any client can hold a cursor.
MAX_CURSOR = (1 << 53) - 1
#: Characters of a regular expression: more than anybody writes for a line of output.
MAX_PATTERN = 1000

_DESCRIPTION = (
    "Inspect and control commands started with `background`, or that outlived their call's `wait`. Each answer has the "
    "cursor to continue from. Output can be read again until the sandbox closes or "
    f"{FINISHED_MAX} newer commands have finished."
)


_ACTIONS = (
    "list: the task's processes. poll: state and output. wait: the same at its end. write: `data` to its stdin. "
    "close_stdin: close that. signal: send `signal`. kill: kill it and all it started. resize: its terminal."
)
_CURSOR = (
    "Output from here on: an earlier answer's cursor, or 0. Default: head and tail of all for poll, wait, kill; else "
    "what is new."
)
_UNTIL = (
    "Regular expression, for wait: until the output has a match, from `cursor` on or in all of it. ^ and $ match at "
    "lines."
)
_OFFSET = {"minimum": 0, "maximum": MAX_CURSOR}
_ALL = get_args(Action)


def _only(*actions: str) -> dict[str, Any]:
    """Say which actions an argument has a meaning for."""
    return {ONLY_WHEN: {"action": list(actions)}}


_OF_ONE = _only(*(action for action in _ALL if action != "list"))
_RESIZE = _only("resize")


def schema(wait: float) -> dict[str, Any]:
    """Return the input schema. `wait` in seconds."""
    return object_schema(
        {
            "action": value_schema("string", _ACTIONS, enum=list(_ALL)),
            "process_id": value_schema("string", "Such as p1; required except for list.", minLength=1, **_OF_ONE),
            "task_id": TASK_ID,
            "cursor": value_schema("integer", _CURSOR, **_OFFSET, **_OF_ONE),
            "stderr_cursor": value_schema("integer", "The same for a skill's stderr.", **_OFFSET, default=0, **_OF_ONE),
            "wait": value_schema(
                "number",
                f"Seconds to wait for the end (wait, default {plain_number(wait):g}) or for output (poll, write; "
                "default 0).",
                minimum=0,
                **_only("wait", "poll", "write"),
            ),
            "until": value_schema("string", _UNTIL, maxLength=MAX_PATTERN, **_only("wait")),
            "data": value_schema("string", "Text to write, line breaks included.", **_only("write")),
            "signal": value_schema("string", "Such as INT, TERM, HUP or USR1.", minLength=1, **_only("signal")),
            "rows": ROWS | _RESIZE,
            "cols": COLS | _RESIZE,
            "strip_ansi": STRIP_ANSI | _OF_ONE,
        },
        ["action"],
    )


@dataclass(frozen=True, kw_only=True)
class ProcessTool(Tool):
    """The tool `process`. It starts nothing.

    Arguments:
        wait, max_wait: seconds that the action `wait` waits by default, and at most.
        output_chars: maximum characters of output in one answer.
        assumed: the profile that `commands` assumes for the process, because it looks up none.
    """

    wait: float
    max_wait: float
    output_chars: int
    assumed: Profile = field(repr=False)

    def bind(self, call: ToolCall) -> ProcessAction:
        """Check a call's arguments. Raises BadArgument."""
        values = self.check(call)
        action: Action = values["action"]
        process_id = values.get("process_id", "")
        if action != "list" and not process_id:
            raise BadArgument(f"The action '{action}' needs 'process_id'; the action 'list' shows them.")
        wait, notes = seconds("wait", values.get("wait", self.wait if action == "wait" else 0), self.max_wait)
        return ProcessAction(
            task=task_key(call, values),
            action=action,
            process_id=process_id,
            cursor=values.get("cursor"),
            stderr_cursor=values.get("stderr_cursor", 0),
            wait=wait,
            data=_data(action, values),
            signal=_signal(action, values),
            size=(values.get("rows", ROWS["default"]), values.get("cols", COLS["default"])),
            strip_ansi=values.get("strip_ansi", False),
            until=_until(values),
            notes=notes,
        )

    def commands(self, call: ToolCall) -> Sequence[Command]:
        """Return what would be written, as if to a process of the terminal."""
        return self.bind(call).commands(TERMINAL, self.assumed)

    async def run(self, gateway: Access, call: ToolCall, watch: Watch | None = None) -> ToolReport:
        return await ProcessCalls(gateway, self.output_chars).call(self.bind(call), watch)


def process_tool(settings: Settings) -> ProcessTool:
    """Create the tool with the limits of the configuration."""
    limits = settings.limits
    return ProcessTool(
        name=PROCESS,
        title="Process",
        description=_DESCRIPTION,
        input_schema=schema(limits.wait),
        output_schema=PROCESS_SCHEMA,
        annotations=ToolAnnotations(read_only=False, destructive=True, idempotent=False, open_world=False),
        wait=limits.wait,
        max_wait=limits.max_timeout,
        output_chars=limits.output_chars,
        assumed=terminal_profile(settings),
    )


def _make(settings: Settings) -> Iterator[Tool]:
    yield process_tool(settings)


BUILT_IN = BuiltIn(names=(PROCESS,), make=_make, rank=2)


def _data(action: Action, values: Mapping[str, Any]) -> str:
    data: str | None = values.get("data")
    if action != "write":
        return ""
    if not data:
        raise BadArgument("The action 'write' needs 'data': the text, line breaks included.")
    size = len(as_utf8("data", data))
    if size > MAX_DATA:
        raise BadArgument(
            f"'data' is {size} bytes long, and at most {MAX_DATA} can be written at once; write it in parts."
        )
    return data


def _until(values: Mapping[str, Any]) -> str:
    until: str = values.get("until", "")
    as_utf8("until", until)
    return until


def _signal(action: Action, values: Mapping[str, Any]) -> int:
    name: str | None = values.get("signal")
    if action != "signal":
        return 0
    if not name:
        raise BadArgument("The action 'signal' needs 'signal', such as INT or TERM.")
    known = {known.name.removeprefix("SIG"): int(known) for known in signal.Signals}
    word = name.upper().removeprefix("SIG")
    number = known.get(word, int(word) if word.isascii() and word.isdigit() and len(word) < 3 else 0)
    if not 1 <= number <= signal.SIGRTMAX:
        raise BadArgument(f"'signal' must be the name of a signal, such as INT or TERM{nearest(word, known)}.")
    return number
