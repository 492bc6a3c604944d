"""Serves the workspace's files as resources: text as text, other bytes as blobs, folders as listings."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from urllib.parse import unquote

import anyio
from mcp_types import BlobResourceContents, Resource, ResourceTemplate, TextResourceContents

from taskcell.errors import BadArgument, ErrorCode, FileRefused, UnknownResource
from taskcell.files.answers import FileAnswer, FileBytes
from taskcell.files.limits import MAX_RESOURCE
from taskcell.files.pictures import picture_type
from taskcell.files.reply import ListedEntry
from taskcell.gateway.gateway import Gateway
from taskcell.mcp.resources.looks import Look, ends, look_at, newest
from taskcell.mcp.resources.routes import Contents, OnBegun, OnChange, Route, as_text, last_modified
from taskcell.mcp.scopes import FOR_FILES
from taskcell.model import WORKSPACE, TaskKey, ToolCall
from taskcell.pool.slot import opened
from taskcell.resource_uris import address
from taskcell.sandbox.sandbox import Sandbox
from taskcell.text import one_line
from taskcell.tools.file_commands import absolute
from taskcell.tools.files import FileTool
from taskcell.units import format_size

#: Seconds between two looks at a file that a client follows.
FILE_LOOK_INTERVAL = 1.0


def file_resources(gateway: Gateway) -> Route:
    """Return the route of `taskcell://tasks/{task_id}/files/{+path}`."""

    async def read(task: TaskKey, rest: str, uri: str) -> Contents:
        path, tool = _path(rest), await gateway.tool_of("read_file", task)
        assert isinstance(tool, FileTool)
        try:
            return [_contents(uri, (await tool.fetch(gateway, task, path)).answer)]
        except FileRefused as refused:
            if refused.code is ErrorCode.NOT_FOUND:
                raise UnknownResource(str(refused)) from None
            if refused.code is not ErrorCode.IS_A_DIRECTORY:
                raise BadArgument(str(refused)) from None
        call = ToolCall(task.principal, "list_files", {"path": path, "task_id": task.task})
        listing = await (await gateway.tool_of("list_files", task)).run(gateway, call)
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

    async def listed(task: TaskKey, sandboxes: Sequence[Sandbox]) -> Sequence[Resource]:
        return [_resource(task, entry) for entry in await newest(gateway, task, sandboxes)]

    async def complete(task: TaskKey, sandboxes: Sequence[Sandbox], begun: str) -> Sequence[str]:
        return [entry.path for entry in await newest(gateway, task, sandboxes) if entry.path.startswith(begun)]

    async def follow(task: TaskKey, rest: str, changed: OnChange, begun: OnBegun) -> None:
        await _follow(gateway, task, _path(rest), changed, begun)

    return Route("files", FOR_FILES, (template,), read, listed, follow, "path", complete)


async def _follow(gateway: Gateway, task: TaskKey, path: str, changed: OnChange, begun: OnBegun) -> None:
    quiet, again = None, False
    sandboxes = opened(gateway.pool.slots, task.principal).get(task, [])
    # What the first command of a task makes is a change.
    seen = None if sandboxes else Look(())
    while True:
        # Where nothing has run since the last look, nothing has changed; so looks keep no sandbox from being idle.
        # One more look follows, for what ran during the last one and ended with it.
        has_run = any(sandbox.channel.living for sandbox in sandboxes) or ends(sandboxes) != quiet
        if has_run or again:
            state = await look_at(gateway, sandboxes, task, path)
            if seen is not None and state is not None and seen.differs(state):
                await changed()
            seen, quiet, again = state or seen, ends(sandboxes), has_run
        begun()
        await anyio.sleep(FILE_LOOK_INTERVAL)
        sandboxes = opened(gateway.pool.slots, task.principal).get(task, [])


def _resource(task: TaskKey, entry: ListedEntry) -> Resource:
    return Resource(
        uri=address(task.task, "files", entry.path),
        name=one_line(entry.path),
        description=f"A file of the task {one_line(task.task)}",
        size=entry.size,
        annotations=last_modified(entry.changed),
    )


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
