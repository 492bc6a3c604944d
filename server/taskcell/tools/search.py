"""The tool `search`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from taskcell.config.settings import Settings
from taskcell.errors import BadArgument
from taskcell.files.answers import FileAnswer
from taskcell.files.search import Query, search
from taskcell.model import Command, ToolCall
from taskcell.schema.arguments import encoded
from taskcell.schema.properties import TASK_ID, object_schema, value_schema
from taskcell.tools.binding import MAX_ARGUMENT
from taskcell.tools.describe import NOTES
from taskcell.tools.file_commands import FileCommand, target
from taskcell.tools.files import FILE, PATH, TASK, FileTool, Job, common
from taskcell.tools.tool import BuiltIn, Tool

_SCHEMA = object_schema(
    {
        "pattern": {
            "type": "string",
            "minLength": 1,
            "description": "Regular expression, without look-around.",
        },
        "path": {**PATH, "default": ".", "description": "Folder or file to search."},
        "glob": {
            "type": "string",
            "minLength": 1,
            "description": "Only files that match, such as `*.{js,ts}`; `!*.md`: all but those.",
        },
        "task_id": TASK_ID,
        "literal": {"type": "boolean", "default": False, "description": "`pattern` is plain text."},
        "ignore_case": {"type": "boolean", "default": False, "description": "Ignore case."},
        "context": {
            "type": "integer",
            "minimum": 0,
            "maximum": 50,
            "default": 0,
            "description": "Lines around each match.",
        },
        "names": {"type": "boolean", "default": False, "description": "Only paths of files."},
        "all": {
            "type": "boolean",
            "default": False,
            "description": "Also what is left out.",
        },
    },
    ["pattern"],
)
_REPORT = object_schema(
    {
        "path": FILE,
        "text": value_schema(
            "string", "Each file's path, and below it its lines as NUMBER:TEXT; context has NUMBER-TEXT."
        ),
        "matches": value_schema("integer", "Lines that match."),
        "files": value_schema("integer", "Files with a match."),
        "truncated": value_schema("boolean", "Whether there is more."),
        "notes": NOTES,
        "task_id": TASK,
    }
)


@dataclass(frozen=True, kw_only=True)
class Search(FileTool):
    """The tool `search`."""

    def commands(self, call: ToolCall) -> Sequence[Command]:
        _query(self.check(call))
        return (self.bind(call),)

    async def answer(self, job: Job, values: Mapping[str, Any]) -> FileAnswer:
        found = target(values.get("path", "."))
        return await search(job.store, job.program, found, _query(values), self.output_chars)


def _query(values: Mapping[str, Any]) -> Query:
    """Return what a call looks for. Raises BadArgument."""
    pattern, glob = values["pattern"], values.get("glob")
    for name, word in (("pattern", pattern), ("glob", glob or "")):
        if len(encoded(name, word)) > MAX_ARGUMENT // 2:
            raise BadArgument(f"'{name}' is too long; search for a part of it.")
    return Query(
        pattern,
        (glob,) if glob else (),
        literal=values.get("literal", False),
        ignore_case=values.get("ignore_case", False),
        context=int(values.get("context", 0)),
        names=values.get("names", False),
        everything=values.get("all", False),
    )


def _make(settings: Settings) -> Iterator[Tool]:
    yield Search(
        title="Search",
        description=(
            "Find lines in files by a regular expression, with ripgrep. Binary files, .git, node_modules and what "
            ".gitignore names are left out."
        ),
        input_schema=_SCHEMA,
        output_schema=_REPORT,
        binding=FileCommand("."),
        **common("search", settings, reads=True, idempotent=True),
    )


BUILT_IN = BuiltIn(names=("search",), make=_make, rank=8)
