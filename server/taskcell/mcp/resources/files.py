"""The file tools' answers, with pictures as pictures, and the workspace's files as resources."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import unquote

from mcp_types import (
    BlobResourceContents,
    CallToolResult,
    ContentBlock,
    ImageContent,
    ResourceTemplate,
    TextContent,
    TextResourceContents,
)

from taskcell.errors import BadArgument, FileRefused, UnknownResource
from taskcell.files.answers import FileAnswer, FileBytes
from taskcell.gateway.gateway import Gateway
from taskcell.mcp.resources.routes import Contents, Route
from taskcell.model import WORKSPACE, TaskKey, ToolCall
from taskcell.tools.files import MAX_RESOURCE, absolute
from taskcell.units import format_size


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _described(kind: str, description: str) -> dict[str, Any]:
    return {"type": kind, "description": description}


def _or_null(kind: str, description: str) -> dict[str, Any]:
    return {"anyOf": [{"type": kind}, {"type": "null"}], "description": description}


_PATH = _described("string", "The absolute path in the task's container.")
_TASK = _described("string", "The task.")
_SIZE = _described("integer", "Bytes of the file.")
_NOTES = {"type": "array", "items": {"type": "string"}, "description": "Sentences that the caller should know."}
_ENTRY = _object(
    {
        "path": _described("string", "Relative to the folder."),
        "type": _described("string", "file, folder, link or other."),
        "size": _or_null("integer", "Bytes, of a file."),
        "modified": _described("string", "When it was last changed, in UTC."),
        "target": _or_null("string", "Where a link leads."),
    }
)
FILE_SCHEMAS = {
    "read_file": _object(
        {
            "path": _PATH,
            "kind": _described("string", "text or image."),
            "text": _described("string", "The lines, without numbers; empty for an image."),
            "mime_type": _described("string", "Such as text/plain or image/png."),
            "first_line": _described("integer", "Number of the first line; 0 for an image."),
            "last_line": _described("integer", "Number of the last line."),
            "total_lines": _or_null("integer", "Lines of the whole file, where they were counted."),
            "size": _SIZE,
            "truncated": _described("boolean", "Whether there are more lines after these."),
            "notes": _NOTES,
            "task_id": _TASK,
        }
    ),
    "write_file": _object(
        {
            "path": _PATH,
            "size": _SIZE,
            "replaced": _described("boolean", "Whether there was such a file before."),
            "notes": _NOTES,
            "task_id": _TASK,
        }
    ),
    "edit_file": _object(
        {
            "path": _PATH,
            "count": _described("integer", "Places that were replaced."),
            "lines": {"type": "array", "items": {"type": "integer"}, "description": "Lines of the first places."},
            "size": _SIZE,
            "notes": _NOTES,
            "task_id": _TASK,
        }
    ),
    "list_files": _object(
        {
            "path": _PATH,
            "entries": {"type": "array", "items": _ENTRY, "description": "In order of their paths."},
            "truncated": _described("boolean", "Whether there are more entries."),
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


# --- resources --------------------------------------------------------------------------------------------------


def file_resources(gateway: Gateway) -> Route:
    """`taskcell://tasks/{task_id}/files/{+path}`: text as text, other bytes as blobs, folders as listings."""

    async def read(task: TaskKey, rest: str, uri: str) -> Contents:
        path = _path(rest)
        try:
            return [_contents(uri, (await gateway.fetch(task, path)).answer)]
        except FileRefused as refused:
            if refused.absent:
                raise UnknownResource(str(refused)) from None
            if not refused.folder:
                raise BadArgument(str(refused)) from None
        call = ToolCall(task.principal, "list_files", {"path": path, "task_id": task.task})
        listing = await gateway.file(call)
        return [TextResourceContents(uri=uri, mime_type="text/plain", text=listing.shown())]

    template = ResourceTemplate(
        uri_template="taskcell://tasks/{task_id}/files/{+path}",
        name="workspace-files",
        title="Files of a task",
        description=(
            f"A file or folder below {WORKSPACE}: text as text, other files as blobs, a folder as its listing. At most "
            f"{format_size(MAX_RESOURCE)}; `read_file` reads larger text in parts."
        ),
    )
    return Route("files", (template,), read)


def _path(rest: str) -> str:
    """The path that an address names, below the workspace. Raises UnknownResource."""
    path = absolute("path", f"{WORKSPACE}/{unquote(rest, errors='surrogateescape')}")
    if path != WORKSPACE and not path.startswith(WORKSPACE + "/"):
        raise UnknownResource(f"Resources are files below {WORKSPACE}; `read_file` reads others of the container.")
    return path


def _contents(uri: str, answer: FileAnswer) -> TextResourceContents | BlobResourceContents:
    assert isinstance(answer, FileBytes)
    text = None if answer.mime or b"\0" in answer.data else _decoded(answer.data)
    if text is not None:
        return TextResourceContents(uri=uri, mime_type="text/plain", text=text)
    blob = base64.b64encode(answer.data).decode("ascii")
    return BlobResourceContents(uri=uri, mime_type=answer.mime or "application/octet-stream", blob=blob)


def _decoded(data: bytes) -> str | None:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None
