"""The route `/files/{task}/{path}`: files and folders of a workspace, as bytes and tar archives, streamed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from email.utils import formatdate
from urllib.parse import unquote_to_bytes

import anyio
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from taskcell.caller import Caller
from taskcell.errors import BadArgument, TaskcellError
from taskcell.files import transfer
from taskcell.files.limits import MAX_PATH
from taskcell.files.transfer import Download, FileHead
from taskcell.gateway.admission import Admission
from taskcell.gateway.gateway import Gateway
from taskcell.http.mcp_endpoint import PIECE_TIMEOUT, TooSlow
from taskcell.http.ranges import UNSATISFIABLE, wanted_range
from taskcell.http.refuse import error_answer, refused
from taskcell.http.sign_in import ScopedRoute
from taskcell.mcp.scopes import FOR_FILES
from taskcell.model import TaskKey, ToolCall
from taskcell.schema.arguments import check_visible
from taskcell.schema.properties import MAX_TASK_ID

FILES = "/files/"
TAR = "application/x-tar"


class Files(ScopedRoute):
    """Serves `/files/` for a caller that is signed in.

    Arguments:
        admission: counts transfers among the door's calls.
    """

    scopes = FOR_FILES

    def __init__(self, gateway: Gateway, admission: Admission) -> None:
        self._gateway = gateway
        self._admission = admission
        super().__init__()

    async def answer(self, caller: Caller, scope: Scope, receive: Receive, send: Send) -> Response | None:
        try:
            task, path = parse_path(scope["raw_path"])
            with self._admission.admitted(caller.principal):
                return await self._serve(TaskKey(caller.principal, task), path, scope, receive, send)
        except TooSlow:
            return error_answer(408, "The body did not come in time; send it again.")
        except ClientDisconnect:
            return None
        except TaskcellError as error:
            return refused(error)

    async def _serve(self, task: TaskKey, path: str, scope: Scope, receive: Receive, send: Send) -> Response | None:
        if scope["method"] in ("GET", "HEAD"):
            return await self._read(task, path, scope, receive, send)
        if scope["method"] == "PUT":
            return await self._write(task, path, Headers(scope=scope), receive)
        return error_answer(405, "Only GET, HEAD and PUT are served here.", {"allow": "GET, HEAD, PUT"})

    async def _read(self, task: TaskKey, path: str, scope: Scope, receive: Receive, send: Send) -> Response | None:
        headers = Headers(scope=scope)
        how = "tar" if TAR in headers.get("accept", "") else "raw"
        call = ToolCall(task.principal, "read_file", {"path": path, "task_id": task.task})
        async with self._gateway.file_call(call) as (sandbox, authorized):
            if scope["method"] == "HEAD" or "range" in headers:
                async with transfer.sending(sandbox, authorized, "look") as looked:
                    head = looked.head
                if scope["method"] == "HEAD":
                    return Response(status_code=200, headers=_described(head, how))
                first, last = wanted_range(headers, head, tag_of(head)) if how == "raw" else (0, None)
                if first == UNSATISFIABLE:
                    return error_answer(416, "The range is beyond the file.", {"content-range": f"bytes */{head.size}"})
            else:
                first, last = 0, None
            length = {} if last is None else {"length": last - first + 1}
            async with transfer.sending(sandbox, authorized, how, first, **length) as download:
                await _send_all(download, how, (first, last), receive, send)
        return None

    async def _write(self, task: TaskKey, path: str, headers: Headers, receive: Receive) -> Response:
        if headers.get("content-encoding", "identity") != "identity":
            return error_answer(415, "The body must be as it is, without a Content-Encoding.")
        if "content-range" in headers:
            return error_answer(400, "A part of a file cannot be replaced; send the whole file.")
        unpacks = headers.get("content-type", "").partition(";")[0].strip().lower() == TAR
        size = headers.get("content-length", "-")
        words = ("unpack",) if unpacks else ("receive", size, "-")
        known = 0 if unpacks or size == "-" else int(size)
        call = ToolCall(task.principal, "write_file", {"path": path, "task_id": task.task})
        async with self._gateway.file_call(call) as (sandbox, authorized):
            count = await transfer.receive(sandbox, authorized, words, body_pieces(receive), known)
        # In ASCII, which holds a name of any bytes.
        fields = json.dumps({"path": authorized.command.text, "entries" if unpacks else "size": count})
        return Response(fields, media_type="application/json")


def parse_task(part: bytes, form: str) -> str:
    """Return the task that a part of an address names. Raises BadArgument.

    Arguments:
        form: how the whole address looks.
    """
    task = unquote_to_bytes(part).decode("utf-8", "surrogateescape")
    if not 0 < len(task) <= MAX_TASK_ID:
        raise BadArgument(f"The address must be {form}, with a name of at most {MAX_TASK_ID} characters.")
    check_visible("task", task)
    return task


def parse_path(raw: bytes) -> tuple[str, str]:
    """Return the task and the path below its workspace that an address names. Raises BadArgument."""
    first, *rest = raw.removeprefix(FILES.encode()).split(b"/")
    task = parse_task(first, f"{FILES}TASK/PATH")
    parts = [unquote_to_bytes(part) for part in rest if part]
    if any(part in (b".", b"..") or b"/" in part or b"\0" in part for part in parts):
        raise BadArgument("A part of the path is '.' or '..', or has a slash or a NUL byte; name the file itself.")
    path = b"/".join(parts)
    if len(path) >= MAX_PATH:
        raise BadArgument(f"The path is longer than the {MAX_PATH - 1} bytes that a path may have.")
    return task, path.decode("utf-8", "surrogateescape") or "."


def tag_of(head: FileHead) -> str:
    """A text that changes with the file."""
    return f'"{head.size:x}-{head.changed:x}"'


def _described(head: FileHead, how: str) -> dict[str, str]:
    """The headers of an answer about a file or folder."""
    common = {
        "last-modified": formatdate(head.changed, usegmt=True),
        "x-content-type-options": "nosniff",
        "content-disposition": "attachment",
    }
    if head.is_folder or how == "tar":
        return {"content-type": TAR, "x-taskcell-kind": "folder" if head.is_folder else "file", **common}
    own = {"content-type": "application/octet-stream", "content-length": str(head.size), "x-taskcell-kind": "file"}
    return {**own, "accept-ranges": "bytes", "etag": tag_of(head), **common}


async def _send_all(download: Download, how: str, wanted: tuple[int, int | None], receive: Receive, send: Send) -> None:
    """Send the answer, until the client goes. One that breaks off is not ended, so that the client notices."""
    headers, (first, last) = _described(download.head, how), wanted
    if last is not None:
        headers["content-range"] = f"bytes {first}-{last}/{download.head.size}"
        headers["content-length"] = str(last - first + 1)
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": 200 if last is None else 206, "headers": raw})
    async with anyio.create_task_group() as watching:

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            watching.cancel_scope.cancel()

        watching.start_soon(watch)
        try:
            async for piece in download.pieces():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TaskcellError:
            pass
        watching.cancel_scope.cancel()


async def body_pieces(receive: Receive) -> AsyncIterator[bytes]:
    """The pieces of a request's body. Raises TooSlow, ClientDisconnect."""
    while True:
        with anyio.move_on_after(PIECE_TIMEOUT) as bound:
            message = await receive()
        if bound.cancelled_caught:
            raise TooSlow
        if message["type"] != "http.request":
            raise ClientDisconnect
        yield message.get("body", b"")
        if not message.get("more_body", False):
            return
