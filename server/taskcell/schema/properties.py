"""Pieces of JSON Schemas that several tools share.

No references and no alternatives; a type and a description on every property.
"""

from __future__ import annotations

from typing import Any

from taskcell.model import DEFAULT_TASK

MAX_TASK_ID = 128
#: More words than a command line needs, and few enough that their lengths fit one frame to the supervisor.
MAX_ARGS = 10_000


TASK_ID = {
    "type": "string",
    "minLength": 1,
    "maxLength": MAX_TASK_ID,
    "default": DEFAULT_TASK,
    "description": "Task name; each task has its own sandbox and /workspace.",
}
STDIN = {"type": "string", "description": "Text for standard input; empty by default."}


ROWS = {"type": "integer", "minimum": 1, "maximum": 1000, "default": 24, "description": "Terminal rows."}
COLS = {"type": "integer", "minimum": 1, "maximum": 1000, "default": 80, "description": "Terminal columns."}
STRIP_ANSI = {
    "type": "boolean",
    "default": False,
    "description": "Strip colours and other control sequences.",
}


def plain_number(number: float) -> float:
    """3600 rather than 3600.0, as people write it."""
    return int(number) if number.is_integer() else number


def object_schema(properties: dict[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    """An object of these properties and no others. `required` None: all of them."""
    return {
        "type": "object",
        "required": list(properties) if required is None else required,
        "additionalProperties": False,
        "properties": properties,
    }


def described(kind: str, description: str, **more: Any) -> dict[str, Any]:
    """A property of one type."""
    return {"type": kind, "description": description, **more}


def or_null(kind: str, description: str) -> dict[str, Any]:
    """A property of a type, or null. Two branches of one type each: some clients know no list of types."""
    return {"anyOf": [{"type": kind}, {"type": "null"}], "description": description}
