"""The tool `write_file`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from taskcell.config.settings import Settings
from taskcell.files.answers import FileAnswer
from taskcell.files.changing import append, write
from taskcell.files.content import content_of
from taskcell.schema.arguments import as_utf8
from taskcell.schema.properties import TASK_ID, object_schema, value_schema
from taskcell.tools.binding import MAX_STDIN
from taskcell.tools.describe import NOTES
from taskcell.tools.file_commands import FileCommand, check_size, from_base64, target
from taskcell.tools.files import FILE, PATH, SIZE, TASK, FileTool, Job, common
from taskcell.tools.tool import BuiltIn, Tool
from taskcell.units import format_size

_SCHEMA = object_schema(
    {
        "path": PATH,
        "content": {"type": "string", "description": "The whole content, or what to append."},
        "task_id": TASK_ID,
        "encoding": {
            "type": "string",
            "minLength": 1,
            "default": "text",
            "description": "text (UTF-8), base64 for other bytes, or such as utf-16, latin-1.",
        },
        "append": {"type": "boolean", "default": False, "description": "Add to the end, in the file's encoding."},
        "mode": {
            "type": "string",
            "pattern": "0?[0-7]{3}",
            "description": "Such as 755. Default: kept, and 644 for a new file.",
        },
        "if_unchanged": {
            "type": "boolean",
            "default": True,
            "description": "Refuse if the file is not as this task last read or wrote it.",
        },
    },
    ["path", "content"],
)
_REPORT = object_schema(
    {
        "path": FILE,
        "size": SIZE,
        "replaced": value_schema("boolean", "Whether the file existed before."),
        "notes": NOTES,
        "task_id": TASK,
    }
)


@dataclass(frozen=True, kw_only=True)
class WriteFile(FileTool):
    """The tool `write_file`."""

    async def answer(self, job: Job, values: Mapping[str, Any]) -> FileAnswer:
        text, label = values["content"], values.get("encoding", "text").strip()
        label = label.lower() if label.lower() in ("text", "base64") else label
        data = as_utf8("content", text)
        if label == "base64":
            data = from_base64(data)
        check_size("content", len(data), "create the file in the terminal, from parts or by a download")
        mode = int(values["mode"], 8) if "mode" in values else None
        file = job.file(target(values["path"]))
        if values.get("append", False):
            return await append(file, text, data, None if label == "text" else label, mode)
        content = content_of(label, data, text, None if label == "text" else label)
        return await write(file, content, if_unchanged=values.get("if_unchanged", True), mode=mode)


def _make(settings: Settings) -> Iterator[Tool]:
    yield WriteFile(
        title="Write file",
        description=(
            f"Write a whole file of at most {format_size(MAX_STDIN)}, or append to one. Makes its folders; replaces "
            "an existing file atomically and keeps its mode. To change a part, use `edit_file`."
        ),
        input_schema=_SCHEMA,
        output_schema=_REPORT,
        binding=FileCommand(),
        **common("write_file", settings, reads=False, idempotent=True),
    )


BUILT_IN = BuiltIn(names=("write_file",), make=_make, rank=5)
