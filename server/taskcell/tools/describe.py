"""What a model reads of the tools: descriptions, and JSON Schemas that every client understands.

No references and no alternatives; a type and a description on every property.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from taskcell.model import WORKSPACE, Profile
from taskcell.schema.properties import COLS, MAX_ARGS, ROWS, STDIN, STRIP_ANSI, TASK_ID, object_schema, plain_number
from taskcell.units import format_seconds, format_size

MAX_VARIABLES = 1000


def _timeout(default: float, most: float) -> dict[str, Any]:
    return {
        "type": "number",
        "exclusiveMinimum": 0,
        "maximum": plain_number(most),
        "default": plain_number(default),
        "description": (
            f"Seconds after which the command and every process it started are killed, at most {format_seconds(most)}. "
            "The output until then is kept."
        ),
    }


def terminal(timeout: float, max_timeout: float, wait: float) -> dict[str, Any]:
    """The schema of `terminal`. Times in seconds."""
    return object_schema(
        {
            "command": {"type": "string", "minLength": 1, "description": "The shell command line, or a script."},
            "task_id": TASK_ID,
            "workdir": {
                "type": "string",
                "minLength": 1,
                "description": (
                    f"Folder to run in: absolute, or relative to {WORKSPACE}. "
                    "Without it, where the task's last command ended."
                ),
            },
            "timeout": _timeout(timeout, max_timeout),
            "wait": {
                "type": "number",
                "minimum": 0,
                "maximum": plain_number(max_timeout),
                "default": plain_number(wait),
                "description": "Seconds to wait for the end. What still runs then goes on, and `process` shows more.",
            },
            "stdin": STDIN,
            "env": {
                "type": "object",
                "maxProperties": MAX_VARIABLES,
                "additionalProperties": {"type": "string"},
                "description": "Environment variables for this command, by name.",
            },
            "background": {
                "type": "boolean",
                "default": False,
                "description": (
                    "Answer as soon as it runs. Without stdin, its standard input stays open for `process`. Where it "
                    "ends is not where the next command starts."
                ),
            },
            "pty": {
                "type": "boolean",
                "default": False,
                "description": "Run it in a terminal of rows and cols, for programs that want one, such as a prompt.",
            },
            "rows": ROWS,
            "cols": COLS,
            "strip_ansi": STRIP_ANSI,
        },
        ["command"],
    )


def skill(profile: Profile, timeout: float, max_timeout: float) -> dict[str, Any]:
    """The schema of a skill's free-form tool. Times in seconds."""
    return object_schema(
        {
            "args": {
                "type": "array",
                "maxItems": MAX_ARGS,
                "items": {"type": "string", "description": "One argument."},
                "default": [],
                "description": "Arguments of the program, one element each; no shell reads them, so do not quote.",
            },
            "task_id": TASK_ID,
            "workdir": {
                "type": "string",
                "minLength": 1,
                "description": (
                    f"Folder to run in: absolute, or relative to {WORKSPACE}. "
                    f"Without it, {profile.working_dir or WORKSPACE}."
                ),
            },
            "timeout": _timeout(timeout, max_timeout),
            "stdin": STDIN,
        },
        [],
    )


def typed(properties: Mapping[str, Mapping[str, Any]], required: list[str]) -> dict[str, Any]:
    """The schema of a typed tool: its parameters, and the task."""
    return object_schema({**{name: dict(schema) for name, schema in properties.items()}, "task_id": TASK_ID}, required)


SANDBOX = object_schema(
    {
        "action": {
            "type": "string",
            "enum": ["status", "reset", "close"],
            "description": (
                "status: what runs and how much it uses. reset: a fresh container, working directory and environment; "
                f"the files in {WORKSPACE} stay. close: end the task; its files are deleted, unless the workspace is "
                "persistent."
            ),
        },
        "task_id": TASK_ID,
    },
    ["action"],
)

SANDBOX_DESCRIPTION = (
    "Show, reset or close the sandbox of a task. Reset it when its processes or its environment are in disorder; "
    "close it when the task is done."
)


def terminal_description(profile: Profile, timeout: float) -> str:
    """What the terminal is, in a few sentences."""
    return (
        "Run a shell command in the task's own Linux container. The working directory and the exported variables that "
        "a command ends with are where the next one starts. "
        f"{_files(profile)} {_bounds(profile, timeout)} "
        "Standard error is merged into the output; a non-zero exit code is a result, not a failure of the tool."
    )


def skill_description(description: str, profile: Profile, timeout: float) -> str:
    """The manifest's own words, and what holds for every skill."""
    return f"{description} {_files(profile)} {_bounds(profile, timeout)}"


def typed_description(description: str, profile: Profile, timeout: float) -> str:
    """The manifest's own words, and what holds for every typed tool."""
    return f"{description} {_files(profile)} {_bounds(profile, timeout, 's')}"


def _files(profile: Profile) -> str:
    here = [mount.target for mount in profile.mounts if mount.source is None]
    also = f" (also at {', '.join(here)})" if here else ""
    return f"Files in {WORKSPACE}{also} are shared by the terminal and all skills of the task."


def _bounds(profile: Profile, timeout: float, unit: str = "s (or 'timeout')") -> str:
    network = "There is no network." if profile.network == "none" else f"The network is '{profile.network}'."
    memory = f"Memory is limited to {format_size(profile.memory)}. " if profile.memory else ""
    return (
        f"{network} {memory}After {format_seconds(timeout)} {unit} the command and all that it started "
        "are killed, and the output so far is returned. A command that takes long is handed over to `process`."
    )
