"""What the model reads and what the client checks: results of runs as MCP answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mcp_types import CallToolResult, TextContent

from taskcell.gateway.processes import ProcessReport
from taskcell.mcp.text import run_text
from taskcell.model import ProcessResult, Status
from taskcell.schema.properties import described, object_schema, or_null

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
#: The contract's section 7: these ends are errors whatever was called.
_ERRORS = frozenset({Status.TIMED_OUT, Status.OOM_KILLED, Status.LOST})


_COUNT = {"minimum": 0}
_NOTES = {"type": "array", "items": {"type": "string"}, "description": "Sentences that the caller should know."}

_RUN = {
    "status": described("string", "How the command ended.", enum=[status.value for status in Status]),
    "exit_code": or_null("integer", "124 timed out, 130 cancelled, 137 out of memory or killed."),
    "signal": or_null("string", "Name of the signal that ended the command."),
    "stdout": described("string", "Output; for the terminal with stderr in it, in order."),
    "stderr": described("string", "Error output of a skill; empty for the terminal."),
    "truncated": described("boolean", "Whether the middle of the output is left out."),
    "omitted_bytes": described("integer", "Bytes of output that are left out.", **_COUNT),
    "duration_ms": described("integer", "Milliseconds that the command ran.", **_COUNT),
    "task_id": described("string", "The task whose sandbox ran the command."),
    "process_id": described("string", "The command's name in its task."),
    "workdir": described("string", "Where the task's next command starts."),
    "survivors": described("integer", "Processes that a kill could not end.", **_COUNT),
    "notes": _NOTES,
}
_CURSORS = {
    "cursor": described("integer", "Where its output goes on, for `process`.", **_COUNT),
    "stderr_cursor": described("integer", "The same for a skill's error output.", **_COUNT),
}
#: A run that goes on has cursors.
RUN_SCHEMA = object_schema({**_RUN, **_CURSORS}, required=list(_RUN))
_LISTED = {
    "process_id": described("string", "Its name."),
    "status": described("string", "As for a run."),
    "exit_code": or_null("integer", "As for a run."),
    "tool": described("string", "What started it."),
    "command": described("string", "How its command begins."),
    "age_s": described("number", "Seconds since its start.", **_COUNT),
    "output_bytes": described("integer", "Bytes it has written, as far as is known.", **_COUNT),
    "pty": described("boolean", "Whether it has a terminal."),
}
PROCESS_SCHEMA = object_schema(
    {
        "action": described("string", "What was done."),
        **RUN_SCHEMA["properties"],
        "lost_bytes": described("integer", "Bytes of the wanted output that are kept no more.", **_COUNT),
        "more_bytes": described("integer", "Bytes after the cursor that are there already.", **_COUNT),
        "written_bytes": described("integer", "Bytes of data that were taken.", **_COUNT),
        "processes": {"type": "array", "description": "All of the task's.", "items": object_schema(_LISTED)},
    },
    required=["action", "task_id", "notes"],
)

SANDBOX_SCHEMA = object_schema(
    {
        "task_id": described("string", "The task."),
        "action": described("string", "What was done: status, reset or close."),
        "sandboxes": {
            "type": "array",
            "description": "The task's sandboxes, after the action.",
            "items": object_schema(
                {
                    "profile": described("string", "What shapes the sandbox: the terminal, or a skill's name."),
                    "container": described("string", "The container's name."),
                    "state": described("string", "Such as ready or lost."),
                    "age_s": described("number", "Seconds since it was created.", **_COUNT),
                    "processes": described("integer", "Processes that run in it.", **_COUNT),
                    "memory_bytes": or_null("integer", "Memory in use, where the engine tells."),
                }
            ),
        },
        "notes": _NOTES,
    }
)


def run_answer(result: ProcessResult, *, is_skill: bool) -> CallToolResult:
    """The answer to a command. Its structured content is of RUN_SCHEMA by its type: nothing checks it at each call."""
    structured = _writable(result.structured())
    failed = result.status in _ERRORS or (is_skill and result.exit_code not in (0, None))
    return _answer(run_text(result), is_error=failed, structured=structured)


def process_answer(report: ProcessReport) -> CallToolResult:
    """The answer of the tool `process`, of PROCESS_SCHEMA."""
    structured, result = _writable(report.structured()), report.result
    if result is None:
        return _answer(report.text(), structured=structured)
    failed = result.status in _ERRORS or (report.is_skill and result.exit_code not in (0, None))
    return _answer(run_text(result), is_error=failed and report.action in ("poll", "wait"), structured=structured)


def sandbox_answer(structured: Mapping[str, Any], text: str) -> CallToolResult:
    """The answer of the tool `sandbox`, of SANDBOX_SCHEMA."""
    return _answer(text, structured=_writable(dict(structured)))


def error_answer(sentence: str) -> CallToolResult:
    """The answer to a call that did not run: the model reads why, and what to do next."""
    return _answer(sentence, is_error=True)


def _writable(value: Any) -> Any:
    """The same value with U+FFFD for halves of surrogate pairs, which no UTF-8 and so no JSON line can hold."""
    match value:
        case str():
            return value if value.isascii() else _LONE_SURROGATE.sub("\ufffd", value)
        case list():
            return [_writable(item) for item in value]
        case dict():
            return {key: _writable(item) for key, item in value.items()}
        case _:
            return value


def _answer(text: str, *, is_error: bool = False, structured: dict[str, Any] | None = None) -> CallToolResult:
    return CallToolResult(
        content=[TextContent(type="text", text=_writable(text))], structured_content=structured, is_error=is_error
    )
