"""Serves the workspace's files as resources: text as text, other bytes as blobs, folders as listings."""

from __future__ import annotations

import base64
from urllib.parse import unquote

from mcp_types import (
    BlobResourceContents,
    ResourceTemplate,
    TextResourceContents,
)

from taskcell.errors import BadArgument, ErrorCode, FileRefused, UnknownResource
from taskcell.files.answers import FileAnswer, FileBytes
from taskcell.files.limits import MAX_RESOURCE
from taskcell.files.pictures import picture_type
from taskcell.gateway.gateway import Gateway
from taskcell.mcp.resources.routes import Contents, Route, as_text
from taskcell.mcp.scopes import FOR_FILES
from taskcell.model import WORKSPACE, TaskKey, ToolCall
from taskcell.tools.file_commands import absolute
from taskcell.tools.files import FileTool
from taskcell.units import format_size


def file_resources(gateway: Gateway) -> Route:
    """Return the route of `taskcell://tasks/{task_id}/files/{+path}`."""

    async def read(task: TaskKey, rest: str, uri: str) -> Contents:
        path, tool = _path(rest), gateway.tools["read_file"]
        assert isinstance(tool, FileTool)
        try:
            return [_contents(uri, (await tool.fetch(gateway, task, path)).answer)]
        except FileRefused as refused:
            if refused.code is ErrorCode.NOT_FOUND:
                raise UnknownResource(str(refused)) from None
            if refused.code is not ErrorCode.IS_A_DIRECTORY:
                raise BadArgument(str(refused)) from None
        call = ToolCall(task.principal, "list_files", {"path": path, "task_id": task.task})
        listing = await gateway.tools["list_files"].run(gateway, call)
        return [TextResourceContents(uri=uri, mime_type="text/plain", text=listing.output())]

    template = ResourceTemplate(
        uri_template="taskcell://tasks/{task_id}/files/{+path}",
        name="workspace-files",
        title="Files of a task",
        description=(
            f"A file of at most {format_size(MAX_RESOURCE)} below {WORKSPACE}, as text or a blob, or a folder as its "
            "listing. `read_file` reads larger text in parts."
        ),
    )
    return Route("files", FOR_FILES, (template,), read)


def _path(rest: str) -> str:
    """Return the path that an address names below the workspace. Raises UnknownResource."""
    path = absolute("path", f"{WORKSPACE}/{unquote(rest, errors='surrogateescape')}")
    if path != WORKSPACE and not path.startswith(WORKSPACE + "/"):
        raise UnknownResource(f"Resources are files below {WORKSPACE}; `read_file` reads other files of the container.")
    return path


def _contents(uri: str, answer: FileAnswer) -> TextResourceContents | BlobResourceContents:
    assert isinstance(answer, FileBytes)
    mime = picture_type(answer.data)
    text = None if mime else as_text(answer.data)
    if text is not None:
        return TextResourceContents(uri=uri, mime_type="text/plain", text=text)
    blob = base64.b64encode(answer.data).decode("ascii")
    return BlobResourceContents(uri=uri, mime_type=mime or "application/octet-stream", blob=blob)
