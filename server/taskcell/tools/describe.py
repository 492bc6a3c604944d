"""What several tools say in the same words: sentences of descriptions, and properties of schemas."""

from __future__ import annotations

from typing import Any

from taskcell.model import WORKSPACE, Profile, Status
from taskcell.schema.properties import described, object_schema, or_null, plain_number
from taskcell.units import format_seconds, format_size

COUNT = {"minimum": 0}
NOTES = {"type": "array", "items": {"type": "string"}, "description": "Sentences that the caller should know."}

RUN = {
    "status": described("string", "How the command ended.", enum=[status.value for status in Status]),
    "exit_code": or_null("integer", "124 timed out, 130 cancelled, 137 out of memory or killed."),
    "signal": or_null("string", "Name of the signal that ended the command."),
    "stdout": described("string", "Output; for the terminal with stderr in it, in order."),
    "stderr": described("string", "Error output of a skill; empty for the terminal."),
    "truncated": described("boolean", "Whether the middle of the output is left out."),
    "omitted_bytes": described("integer", "Bytes of output that are left out.", **COUNT),
    "duration_ms": described("integer", "Milliseconds that the command ran.", **COUNT),
    "task_id": described("string", "The task whose sandbox ran the command."),
    "process_id": described("string", "The command's name in its task."),
    "workdir": described("string", "Where the task's next command starts."),
    "survivors": described("integer", "Processes that a kill could not end.", **COUNT),
    "notes": NOTES,
}
_CURSORS = {
    "cursor": described("integer", "Where its output goes on, for `process`.", **COUNT),
    "stderr_cursor": described("integer", "The same for a skill's error output.", **COUNT),
}
#: What a run answers. One that goes on has cursors.
RUN_SCHEMA = object_schema({**RUN, **_CURSORS}, required=list(RUN))


def timeout_property(default: float, most: float) -> dict[str, Any]:
    """The argument `timeout`. Both in seconds."""
    return {
        "type": "number",
        "exclusiveMinimum": 0,
        "maximum": plain_number(most),
        "default": plain_number(default),
        "description": "Seconds until the command and all it started are killed; output so far is kept.",
    }


def shared_files(profile: Profile, others: str) -> str:
    """Say where the task's files are, and who else works on them."""
    here = [mount.target for mount in profile.mounts if mount.source is None]
    also = f" (also at {', '.join(here)})" if here else ""
    return f"Files in {WORKSPACE}{also} are shared with {others} of the task."


def limits_of(profile: Profile) -> str:
    """Say which network and how much memory there is."""
    network = "No network." if profile.network == "none" else f"Network: '{profile.network}'."
    return f"{network} Memory: {format_size(profile.memory)}." if profile.memory else network


def killed_after(timeout: float) -> str:
    """Say when a command is killed whose tool has no argument for that. `timeout` in seconds."""
    return f"After {format_seconds(timeout)} s the command and all it started are killed; output so far is kept."
