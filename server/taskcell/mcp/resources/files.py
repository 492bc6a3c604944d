"""The workspace's files as resources: text as text, other bytes as blobs, folders as listings."""

from __future__ import annotations

import base64
from urllib.parse import unquote

from mcp_types import (
    BlobResourceContents,
    ResourceTemplate,
    TextResourceContents,
)

from taskcell.errors import BadArgument, FileRefused, UnknownResource
from taskcell.files.answers import FileAnswer, FileBytes
from taskcell.gateway.gateway import Gateway
from taskcell.mcp.resources.routes import Contents, Route
from taskcell.model import WORKSPACE, TaskKey, ToolCall
from taskcell.tools.files import MAX_RESOURCE, absolute
from taskcell.units import format_size


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
        raise UnknownResource(f"Resources are files below {WORKSPACE}; for others there is `read_file`.")
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
