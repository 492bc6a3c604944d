"""The file tools' answers and their schemas, with pictures as pictures."""

from __future__ import annotations

import base64

from mcp_types import CallToolResult, ContentBlock, ImageContent, TextContent

from taskcell.errors import FileRefused
from taskcell.files.answers import FileBytes
from taskcell.gateway.gateway import Gateway
from taskcell.model import ToolCall
from taskcell.schema.properties import described, object_schema, or_null

_PATH = described("string", "The absolute path in the task's container.")
_TASK = described("string", "The task.")
_SIZE = described("integer", "Bytes of the file.")
_NOTES = {"type": "array", "items": {"type": "string"}, "description": "Sentences that the caller should know."}
_ENTRY = object_schema(
    {
        "path": described("string", "Relative to the folder."),
        "type": described("string", "file, folder, link or other."),
        "size": or_null("integer", "Bytes, of a file."),
        "modified": described("string", "When it was last changed, in UTC."),
        "target": or_null("string", "Where a link leads."),
    }
)
FILE_SCHEMAS = {
    "read_file": object_schema(
        {
            "path": _PATH,
            "kind": described("string", "text or image."),
            "text": described("string", "The lines, without numbers; empty for an image."),
            "mime_type": described("string", "Such as text/plain or image/png."),
            "first_line": described("integer", "Number of the first line; 0 for an image."),
            "last_line": described("integer", "Number of the last line."),
            "total_lines": or_null("integer", "Lines of the whole file, where they were counted."),
            "size": _SIZE,
            "truncated": described("boolean", "Whether there are more lines after these."),
            "notes": _NOTES,
            "task_id": _TASK,
        }
    ),
    "write_file": object_schema(
        {
            "path": _PATH,
            "size": _SIZE,
            "replaced": described("boolean", "Whether there was such a file before."),
            "notes": _NOTES,
            "task_id": _TASK,
        }
    ),
    "edit_file": object_schema(
        {
            "path": _PATH,
            "count": described("integer", "Places that were replaced."),
            "lines": {"type": "array", "items": {"type": "integer"}, "description": "Lines of the first places."},
            "size": _SIZE,
            "notes": _NOTES,
            "task_id": _TASK,
        }
    ),
    "list_files": object_schema(
        {
            "path": _PATH,
            "entries": {"type": "array", "items": _ENTRY, "description": "In order of their paths."},
            "truncated": described("boolean", "Whether there are more entries."),
            "notes": _NOTES,
            "task_id": _TASK,
        }
    ),
}


async def file_answer(gateway: Gateway, call: ToolCall) -> CallToolResult:
    """Run one call of a file tool. Raises a TaskcellError."""
    report = await gateway.file(call)
    content: list[ContentBlock] = [TextContent(type="text", text=report.shown())]
    if isinstance(report.answer, FileBytes):
        content.insert(0, _picture(report.answer))
    return CallToolResult(content=content, structured_content=report.structured())


def _picture(answer: FileBytes) -> ImageContent:
    if answer.mime is None:
        raise FileRefused(f"{answer.path} changed while it was read; read it again.")
    return ImageContent(type="image", data=base64.b64encode(answer.data).decode("ascii"), mime_type=answer.mime)
