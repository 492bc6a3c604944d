"""Parts of JSON Schemas that several tools share.

For clients that know little of JSON Schema, input schemas have no references and no alternatives, and every
property has a type and a description.
"""

from __future__ import annotations

from typing import Any

from taskcell.model import DEFAULT_TASK
from taskcell.schema.forms import EMPTY_COUNTS

MAX_TASK_ID = 128
#: More arguments than a command line needs, and few enough that their lengths fit one frame to the supervisor.
MAX_ARGS = 10_000


TASK_ID = {
    "type": "string",
    "minLength": 1,
    "maxLength": MAX_TASK_ID,
    "default": DEFAULT_TASK,
    "description": "Task; each has its own /workspace.",
}
STDIN = {"type": "string", "description": "Text for standard input.", EMPTY_COUNTS: True}


ROWS = {"type": "integer", "minimum": 1, "maximum": 1000, "default": 24, "description": "Terminal rows."}
COLS = {"type": "integer", "minimum": 1, "maximum": 1000, "default": 80, "description": "Terminal columns."}
STRIP_ANSI = {
    "type": "boolean",
    "default": False,
    "description": "Strip colours and other control sequences.",
}


def plain_number(number: float) -> float:
    """Return 3600 for 3600.0, as people write it."""
    return int(number) if number.is_integer() else number


def object_schema(properties: dict[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    """Return the schema of an object with these properties only. `required` None: all are required."""
    return {
        "type": "object",
        "required": list(properties) if required is None else required,
        "additionalProperties": False,
        "properties": properties,
    }


def value_schema(kind: str, description: str, **more: Any) -> dict[str, Any]:
    """Return the schema of a property of one type."""
    return {"type": kind, "description": description, **more}


def or_null(kind: str, description: str) -> dict[str, Any]:
    """Return the schema of a property of one type or null, as two branches: some clients know no lists of types."""
    return {"anyOf": [{"type": kind}, {"type": "null"}], "description": description}
