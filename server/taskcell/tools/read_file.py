"""The tool `read_file`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from taskcell.config.settings import Settings
from taskcell.errors import BadArgument, FileRefused
from taskcell.files.answers import FileAnswer, FileBytes, FileText, SeveralFiles
from taskcell.files.encodings import Encoding, named
from taskcell.files.reading import Wanted, read_file
from taskcell.model import Command, ToolCall
from taskcell.schema.properties import TASK_ID, object_schema, or_null, value_schema
from taskcell.tools.describe import NOTES
from taskcell.tools.file_commands import MAX_LINE_NUMBER, FileCommand, target
from taskcell.tools.files import FILE, PATH, SIZE, TASK, FileTool, Job, common
from taskcell.tools.tool import BuiltIn, Tool

#: Files of one call: each gets its share of the answer.
MAX_PATHS = 20

_SCHEMA = object_schema(
    {
        "path": PATH,
        "paths": {
            "type": "array",
            "items": PATH,
            "maxItems": MAX_PATHS,
            "description": "Several files, instead of `path`.",
        },
        "task_id": TASK_ID,
        "offset": {
            "type": "integer",
            "minimum": -MAX_LINE_NUMBER,
            "maximum": MAX_LINE_NUMBER,
            "default": 1,
            "description": "First line; negative counts from the end: -20 is the last 20 lines.",
        },
        "limit": {
            "type": "integer",
            "minimum": 1,
            "maximum": MAX_LINE_NUMBER,
            "description": "Most lines. Default: as many as one answer holds.",
        },
        "column": {
            "type": "integer",
            "minimum": 1,
            "maximum": MAX_LINE_NUMBER,
            "default": 1,
            "description": "First character of each line, for very long lines.",
        },
        "encoding": {
            "type": "string",
            "description": "Such as latin-1, if it is not recognised.",
        },
    },
    [],
)
_REPORT = object_schema(
    {
        "path": FILE,
        "kind": value_schema("string", "text, image, or several."),
        "text": value_schema("string", "The lines without their numbers; empty for an image."),
        "mime_type": value_schema("string", "Such as text/plain or image/png."),
        "encoding": value_schema("string", "Encoding of the file, such as UTF-8; empty for an image."),
        "first_line": value_schema("integer", "Number of the first line; 0 for an image."),
        "last_line": value_schema("integer", "Number of the last line."),
        "total_lines": or_null("integer", "Lines of the whole file, if they were counted."),
        "size": SIZE,
        "truncated": value_schema("boolean", "Whether more lines follow."),
        "files": {
            "type": "array",
            "items": {"type": "object"},
            "description": "For several files, these fields of each, or `error` with a sentence.",
        },
        "notes": NOTES,
        "task_id": TASK,
    }
)
_REPORT["required"].remove("files")


@dataclass(frozen=True, kw_only=True)
class ReadFile(FileTool):
    """The tool `read_file`."""

    def commands(self, call: ToolCall) -> Sequence[Command]:
        paths = _paths(self.check(call))
        return [self.bind(replace(call, arguments={**call.arguments, "path": path})) for path in paths]

    async def answer(self, job: Job, values: Mapping[str, Any]) -> FileAnswer:
        paths = _paths(values)
        wanted = Wanted(
            first=_first(values),
            lines=int(values.get("limit", MAX_LINE_NUMBER)),
            column=int(values.get("column", 1)),
            encoding=_encoding(values.get("encoding")),
            room=self.output_chars // len(paths),
            raw="encoding" in values,
        )
        if len(paths) == 1:
            return await _one(job, paths[0], wanted)
        parts: list[FileText | FileBytes | str] = []
        for path in paths:
            try:
                parts.append(await _one(job, path, wanted))
            except FileRefused as refused:
                parts.append(str(refused))
        if all(isinstance(part, str) for part in parts):
            raise FileRefused(" ".join(map(str, parts)))
        return SeveralFiles(tuple(parts))


async def _one(job: Job, path: str, wanted: Wanted) -> FileText | FileBytes:
    found = target(path)
    shown, where, content = await read_file(job.store, job.program, found, wanted)
    job.history.see(job.task, found.named(where), content)
    return shown


def _paths(values: Mapping[str, Any]) -> list[str]:
    """Return what is to be read. Raises BadArgument."""
    paths = [*([values["path"]] if "path" in values else []), *values.get("paths", ())]
    if not paths:
        raise BadArgument("'read_file' needs 'path'.")
    return list(dict.fromkeys(paths))


def _first(values: Mapping[str, Any]) -> int:
    first = int(values.get("offset", 1))
    if first == 0:
        raise BadArgument("'offset' must be at least 1, the first line, or negative to count from the end.")
    return first


def _encoding(label: str | None) -> Encoding | None:
    found = None if label is None else named(label)
    if label is not None and found is None:
        raise BadArgument("'encoding' is not one that Python knows; use one such as utf-8, utf-16, latin-1 or gbk.")
    return found


def _make(settings: Settings) -> Iterator[Tool]:
    yield ReadFile(
        title="Read file",
        description=(
            "Read a file: text of any encoding with line numbers, a notebook as cells, a picture (PNG, JPEG, GIF, "
            "WebP) as a picture."
        ),
        input_schema=_SCHEMA,
        output_schema=_REPORT,
        binding=FileCommand(),
        **common("read_file", settings, reads=True, idempotent=True),
    )


BUILT_IN = BuiltIn(names=("read_file",), make=_make, rank=4)
