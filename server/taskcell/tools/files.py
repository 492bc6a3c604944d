"""The tools `read_file`, `write_file`, `edit_file` and `list_files`, in the terminal's sandbox."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from taskcell.config.settings import Settings
from taskcell.errors import ErrorCode, FileRefused
from taskcell.files.answers import FileBytes, FileReport, Written
from taskcell.files.limits import MAX_ENTRIES
from taskcell.files.run import run_file_command
from taskcell.model import WORKSPACE, Command, TaskKey, ToolCall
from taskcell.profile.build import terminal_profile
from taskcell.schema.properties import TASK_ID, object_schema, or_null, value_schema
from taskcell.tools.binding import MAX_STDIN, Binding, CommandTool
from taskcell.tools.describe import NOTES
from taskcell.tools.file_commands import MAX_LINE_NUMBER, EditFile, FetchFile, ListFiles, ReadFile, WriteFile
from taskcell.tools.relative_paths import relative_hints
from taskcell.tools.tool import Access, BuiltIn, Tool, ToolAnnotations, ToolReport, Watch
from taskcell.units import format_size

#: Seconds for a file command: it reads and writes memory or a local disk, and bounds its own searches to ten seconds.
FILE_TIMEOUT = 30.0
_ENCODINGS = ("text", "utf-8", "base64")


@dataclass(frozen=True, kw_only=True)
class FileTool(CommandTool):
    """A file tool. Its command is one of `supervisor file`.

    Arguments:
        output_chars: maximum characters of one answer.
    """

    output_chars: int

    async def run(self, gateway: Access, call: ToolCall, watch: Watch | None = None) -> ToolReport:
        report = await self._run(gateway, self.bind(call), self.check(call).get("path", "."))
        if isinstance(report.answer, FileBytes) and report.answer.mime is None:
            raise FileRefused(f"{report.answer.path} changed while it was read; read it again.")
        return report

    async def fetch(self, gateway: Access, task: TaskKey, path: str) -> FileReport:
        """Read a whole file of any content. Raises a TaskcellError; FileRefused if the sandbox refuses."""
        return await self._run(gateway, self.fetching(task, path))

    def fetching(self, task: TaskKey, path: str) -> Command:
        """Return the command that reads a whole file. Raises BadArgument."""
        return FetchFile().bind(self.blank(task), {"path": path})

    async def _run(self, gateway: Access, command: Command, path: str = "/") -> FileReport:
        """Run a command in the sandbox. `path`: as the call has it."""
        authorized = gateway.authorize(command)
        async with gateway.pool.lease(command.task, authorized.profile) as (sandbox, notes):
            try:
                answer = await run_file_command(sandbox, authorized, self.output_chars)
            except FileRefused as refused:
                hints = (
                    await relative_hints(gateway, sandbox, command, path) if refused.code is ErrorCode.NOT_FOUND else []
                )
                raise refused.noted([*notes, *hints]) from None
            is_new = isinstance(answer, Written) and not answer.replaced
            hints = await relative_hints(gateway, sandbox, command, path) if is_new else []
            return FileReport.of(command.task.task, answer, [*notes, *hints], self.output_chars)


_PATH = {
    "type": "string",
    "minLength": 1,
    "description": f"Absolute in the container, or relative to {WORKSPACE}.",
}

READ_SCHEMA = object_schema(
    {
        "path": _PATH,
        "task_id": TASK_ID,
        "offset": {
            "type": "integer",
            "minimum": 1,
            "maximum": MAX_LINE_NUMBER,
            "default": 1,
            "description": "First line, counted from 1.",
        },
        "limit": {
            "type": "integer",
            "minimum": 1,
            "maximum": MAX_LINE_NUMBER,
            "description": "Maximum number of lines. Default: as many as one answer holds.",
        },
    },
    ["path"],
)
WRITE_SCHEMA = object_schema(
    {
        "path": _PATH,
        "content": {"type": "string", "description": "The whole content."},
        "task_id": TASK_ID,
        "encoding": {
            "type": "string",
            "enum": list(_ENCODINGS),
            "default": "text",
            "description": "`content` is text (written as UTF-8), or base64 for other bytes.",
        },
    },
    ["path", "content"],
)
EDIT_SCHEMA = object_schema(
    {
        "path": _PATH,
        "old": {
            "type": "string",
            "minLength": 1,
            "description": "Text exactly as in the file, without line numbers; may span lines.",
        },
        "new": {"type": "string", "description": "Replacement; empty deletes `old`."},
        "task_id": TASK_ID,
        "count": {
            "type": "integer",
            "minimum": 1,
            "maximum": 1_000_000,
            "default": 1,
            "description": "How often `old` occurs; all are replaced, or none if the number is wrong.",
        },
    },
    ["path", "old", "new"],
)
LIST_SCHEMA = object_schema(
    {
        "path": {**_PATH, "default": "."},
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
    },
    [],
)

_FILE = value_schema("string", "Absolute path in the container.")
_TASK = value_schema("string", "Name of the task.")
_SIZE = value_schema("integer", "Size of the file in bytes.")
_ENTRY = object_schema(
    {
        "path": value_schema("string", "Relative to the folder."),
        "type": value_schema("string", "file, folder, link or other."),
        "size": or_null("integer", "Size in bytes, for a file."),
        "modified": value_schema("string", "Time of the last change, in UTC."),
        "target": or_null("string", "Target of a link."),
    }
)
REPORT_SCHEMAS = {
    "read_file": object_schema(
        {
            "path": _FILE,
            "kind": value_schema("string", "text or image."),
            "text": value_schema("string", "The lines without their numbers; empty for an image."),
            "mime_type": value_schema("string", "Such as text/plain or image/png."),
            "first_line": value_schema("integer", "Number of the first line; 0 for an image."),
            "last_line": value_schema("integer", "Number of the last line."),
            "total_lines": or_null("integer", "Lines of the whole file, if they were counted."),
            "size": _SIZE,
            "truncated": value_schema("boolean", "Whether more lines follow."),
            "notes": NOTES,
            "task_id": _TASK,
        }
    ),
    "write_file": object_schema(
        {
            "path": _FILE,
            "size": _SIZE,
            "replaced": value_schema("boolean", "Whether the file existed before."),
            "notes": NOTES,
            "task_id": _TASK,
        }
    ),
    "edit_file": object_schema(
        {
            "path": _FILE,
            "count": value_schema("integer", "Number of replacements."),
            "lines": {
                "type": "array",
                "items": {"type": "integer"},
                "description": "Line numbers of the first replacements.",
            },
            "size": _SIZE,
            "notes": NOTES,
            "task_id": _TASK,
        }
    ),
    "list_files": object_schema(
        {
            "path": _FILE,
            "entries": {"type": "array", "items": _ENTRY, "description": "Ordered by path."},
            "truncated": value_schema("boolean", "Whether there are more entries."),
            "notes": NOTES,
            "task_id": _TASK,
        }
    ),
}


DESCRIPTIONS = {
    "read_file": "Read a file: text with line numbers, a picture (PNG, JPEG, GIF, WebP) as a picture.",
    "write_file": (
        f"Write a whole file of at most {format_size(MAX_STDIN)}. Makes its folders; replaces an existing file "
        "atomically and keeps its mode. To change a part, use `edit_file`."
    ),
    "edit_file": (
        "Replace exact text in a file. `old` must occur exactly `count` times: include enough context. If all lines "
        "end in CRLF, `old` and `new` may use LF."
    ),
    "list_files": (
        f"List a folder, or the paths in it that match `glob`, with sizes and times; at most {MAX_ENTRIES}. "
        "Links are shown, not followed."
    ),
}
TITLES = {"read_file": "Read file", "write_file": "Write file", "edit_file": "Edit file", "list_files": "List files"}
SCHEMAS = {"read_file": READ_SCHEMA, "write_file": WRITE_SCHEMA, "edit_file": EDIT_SCHEMA, "list_files": LIST_SCHEMA}


def hints(name: str) -> ToolAnnotations:
    """Return a file tool's hints: reading changes nothing, and writing twice is the same as once, unlike editing."""
    reads = name in ("read_file", "list_files")
    return ToolAnnotations(
        read_only=reads, destructive=not reads, idempotent=reads or name == "write_file", open_world=False
    )


def binding(name: str, output_chars: int) -> Binding:
    """Return what turns a file tool's arguments into its command. `output_chars`: maximum characters of one answer."""
    match name:
        case "read_file":
            return ReadFile(output_chars)
        case "write_file":
            return WriteFile()
        case "edit_file":
            return EditFile()
        case _:
            return ListFiles()


def file_tools(settings: Settings) -> Iterator[Tool]:
    """Create the four tools with the limits of the configuration."""
    profile, output_chars = terminal_profile(settings), settings.limits.output_chars
    for name, input_schema in SCHEMAS.items():
        yield FileTool(
            name=name,
            title=TITLES[name],
            description=DESCRIPTIONS[name],
            input_schema=input_schema,
            output_schema=REPORT_SCHEMAS[name],
            annotations=hints(name),
            profile=profile,
            timeout=FILE_TIMEOUT,
            binding=binding(name, output_chars),
            output_chars=output_chars,
        )


BUILT_IN = BuiltIn(names=tuple(SCHEMAS), make=file_tools, rank=4)
