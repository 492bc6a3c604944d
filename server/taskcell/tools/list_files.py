"""The tool `list_files`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from taskcell.config.settings import Settings
from taskcell.files.answers import FileAnswer
from taskcell.files.limits import MAX_ENTRIES
from taskcell.files.listing import listing
from taskcell.model import Command, ToolCall
from taskcell.schema.properties import TASK_ID, object_schema, or_null, value_schema
from taskcell.tools.describe import NOTES
from taskcell.tools.file_commands import FileCommand, patterns, target
from taskcell.tools.files import FILE, PATH, TASK, FileTool, Job, common
from taskcell.tools.tool import BuiltIn, Tool

#: More entries than are ever looked at.
_MAX_OFFSET = 10_000_000

_SCHEMA = object_schema(
    {
        "path": {**PATH, "default": "."},
        "task_id": TASK_ID,
        "glob": {
            "type": "string",
            "minLength": 1,
            "default": "*",
            "description": (
                "Such as `**/*.py`: `*` and `?` match within a name, `**` across folders; also `[a-z]`, `{a,b}`. "
                "Hidden files match."
            ),
        },
        "order": {
            "type": "string",
            "enum": ["name", "time"],
            "default": "name",
            "description": "time: last changed first.",
        },
        "details": {"type": "boolean", "default": False, "description": "Show sizes and times."},
        "all": {
            "type": "boolean",
            "default": False,
            "description": "Also what .gitignore names, .git, node_modules and the like.",
        },
        "offset": {
            "type": "integer",
            "minimum": 0,
            "maximum": _MAX_OFFSET,
            "default": 0,
            "description": "Entries to skip.",
        },
    },
    [],
)
_ENTRY = object_schema(
    {
        "path": value_schema("string", "Relative to the folder."),
        "type": value_schema("string", "file, folder, link or other."),
        "size": or_null("integer", "Size in bytes, for a file."),
        "modified": value_schema("string", "Time of the last change, in UTC."),
        "target": or_null("string", "Target of a link."),
    }
)
_REPORT = object_schema(
    {
        "path": FILE,
        "entries": {"type": "array", "items": _ENTRY, "description": "In the order that was asked for."},
        "truncated": value_schema("boolean", "Whether there are more entries."),
        "found": value_schema("integer", "Entries that match, on all pages."),
        "notes": NOTES,
        "task_id": TASK,
    }
)


@dataclass(frozen=True, kw_only=True)
class ListFiles(FileTool):
    """The tool `list_files`."""

    def commands(self, call: ToolCall) -> Sequence[Command]:
        values = self.check(call)
        patterns(values.get("glob", "*"), target(values.get("path", ".")).shown)
        return (self.bind(call),)

    async def answer(self, job: Job, values: Mapping[str, Any]) -> FileAnswer:
        folder, skip = target(values.get("path", ".")), int(values.get("offset", 0))
        listed = await job.store.list(
            folder,
            patterns(values.get("glob", "*"), folder.shown),
            skip=skip,
            newest_first=values.get("order", "name") == "time",
            usual=not values.get("all", False),
        )
        details = values.get("details", False)
        return listing(folder.shown, listed, self.output_chars, skipped=skip, details=details)


def _make(settings: Settings) -> Iterator[Tool]:
    yield ListFiles(
        title="List files",
        description=(
            f"List a folder, or the paths in it that match `glob`; at most {MAX_ENTRIES} in one answer. Links are "
            "followed where `glob` names them, not by `**`."
        ),
        input_schema=_SCHEMA,
        output_schema=_REPORT,
        binding=FileCommand("."),
        **common("list_files", settings, reads=True, idempotent=True),
    )


BUILT_IN = BuiltIn(names=("list_files",), make=_make, rank=7)
