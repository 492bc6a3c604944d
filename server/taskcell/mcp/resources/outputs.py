"""Serves the kept output of a process as a resource, in pages if it is large."""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl, unquote

import anyio
from mcp_types import BlobResourceContents, Resource, ResourceTemplate, TextResourceContents

from taskcell.errors import SandboxLost, UnknownProcess, UnknownResource
from taskcell.gateway.gateway import Gateway
from taskcell.mcp.answer import OF_SERVER
from taskcell.mcp.resources.routes import Contents, OnBegun, OnChange, Route, as_text, last_modified
from taskcell.mcp.scopes import FOR_COMMANDS
from taskcell.model import MIB, TaskKey
from taskcell.pool.slot import opened
from taskcell.process.kept_output import Piece, read_piece
from taskcell.process.output import whole_characters
from taskcell.process.process import Process
from taskcell.process.record import Record
from taskcell.resource_uris import output_address
from taskcell.sandbox.sandbox import Sandbox
from taskcell.supervisor.protocol import Stream
from taskcell.text import one_line, shown
from taskcell.tools.process_calls import find_process

#: Maximum bytes of one page. Even as base64 it is far below what clients accept in one message.
MAX_PAGE = MIB
#: Seconds between two notices about one process's output: a client reads it all again each time.
UPDATE_INTERVAL = 1.0
TEMPLATE = "taskcell://tasks/{task_id}/processes/{process_id}/output{?stream,cursor,limit}"
_STREAMS = {"stdout": Stream.STDOUT, "stderr": Stream.STDERR}


def output_resources(gateway: Gateway) -> Route:
    """Return the route of `taskcell://tasks/{task_id}/processes/{process_id}/output`."""

    async def read(task: TaskKey, rest: str, uri: str) -> Contents:
        process_id, query = _named(rest)
        streams, cursor, limit = _parse(query)
        try:
            _, record = await find_process(gateway.pool, task, process_id)
            wanted = streams or list(Stream)
            pieces = {stream: await read_piece(record.process, stream, cursor, limit) for stream in wanted}
        except UnknownProcess as error:
            raise UnknownResource(str(error)) from None
        contents: Contents = []
        for stream, piece in pieces.items():
            # A terminal's stderr is part of its output.
            if stream is Stream.STDOUT or streams or (record.about.kind == "skill" and piece.total):
                contents += _contents(task, process_id, stream, piece, uri)
        return contents

    template = ResourceTemplate(
        uri_template=TEMPLATE,
        name="output",
        title="Output of a process",
        description=(
            f"A command's kept output: at most `limit` bytes (default and maximum {MAX_PAGE}) from `cursor` on. If "
            "there is more, the last part names the next page. `stream` is stdout or stderr; default: both."
        ),
        mime_type="text/plain",
    )

    async def follow(task: TaskKey, rest: str, changed: OnChange, begun: OnBegun) -> None:
        process_id, _ = _named(rest)
        records = _records(opened(gateway.pool.slots, task.principal).get(task, []))
        process = next((record.process for record in records if record.about.process_id == process_id), None)
        if process is None:
            raise UnknownResource(f"This task has no process {shown(process_id, 20)}; `process` lists its processes.")
        await _follow(process, changed, begun)

    return Route("processes", FOR_COMMANDS, (template,), read, _list, follow, "process_id", _complete)


def _named(rest: str) -> tuple[str, str]:
    """Return the process and the query that an address names. Raises UnknownResource."""
    path, _, query = rest.partition("?")
    process_id, _, what = path.partition("/")
    if what != "output":
        raise UnknownResource("The only resource of a process is its output: `…/processes/{process_id}/output`.")
    return unquote(process_id), query


def _records(sandboxes: Sequence[Sandbox]) -> list[Record]:
    """The task's processes, the newest first."""
    found = [record for sandbox in sandboxes for record in sandbox.processes]
    return sorted(found, key=lambda record: record.about.started, reverse=True)


async def _list(task: TaskKey, sandboxes: Sequence[Sandbox]) -> Sequence[Resource]:
    return [
        Resource(
            uri=output_address(task.task, record.about.process_id),
            name=f"{record.about.process_id} of {task.task}",
            title=f"Output of {record.about.process_id}",
            description=f"{'ended' if record.process.has_ended else 'running'}: {one_line(record.about.text)}",
            mime_type="text/plain",
            size=sum(record.process.written),
            annotations=last_modified(record.ended or time.time()),
        )
        for record in _records(sandboxes)
    ]


async def _complete(task: TaskKey, sandboxes: Sequence[Sandbox], begun: str) -> Sequence[str]:
    return [record.about.process_id for record in _records(sandboxes) if record.about.process_id.startswith(begun)]


async def _follow(process: Process, changed: OnChange, begun: OnBegun) -> None:
    """Tell of new output, and of the process's end. What comes close together is told once."""
    seen = process.written
    begun()
    with suppress(SandboxLost):
        while not process.has_ended:
            await process.news(seen)
            seen = process.written
            await changed()
            await anyio.sleep(UPDATE_INTERVAL)
    if process.written != seen:
        await changed()


def _parse(query: str) -> tuple[list[Stream], int, int]:
    """Return streams, cursor and limit of a query. Raises UnknownResource."""
    values = dict(parse_qsl(query, keep_blank_values=True))
    names = [values.pop("stream")] if "stream" in values else []
    numbers = [values.pop("cursor", "0"), values.pop("limit", str(MAX_PAGE))]
    if values or not all(name in _STREAMS for name in names):
        raise UnknownResource("The query may hold stream (stdout or stderr), cursor and limit, and nothing else.")
    if not all(number.isascii() and number.isdigit() and len(number) < 17 for number in numbers):
        raise UnknownResource("cursor and limit must be numbers of bytes.")
    cursor, limit = map(int, numbers)
    if not 0 < limit <= MAX_PAGE:
        raise UnknownResource(f"limit must be at least 1 and at most {MAX_PAGE} bytes; read the rest page by page.")
    return [_STREAMS[name] for name in names], cursor, limit


def _contents(task: TaskKey, process_id: str, stream: Stream, piece: Piece, uri: str) -> Contents:
    """Return one page, as text if it is UTF-8 and else as bytes, and a link to the next page if there is one."""
    data = piece.data
    if piece.end < piece.total:
        data = whole_characters(data) or data
    end, name = piece.offset + len(data), stream.name.lower()
    here = uri if stream is Stream.STDOUT else output_address(task.task, process_id, stream=name, cursor=piece.offset)
    meta: dict[str, Any] = {
        "taskcell/stream": name,
        "taskcell/cursor": piece.offset,
        "taskcell/next_cursor": end,
        "taskcell/total_bytes": piece.total,
        "taskcell/lost_bytes": piece.lost,
    }
    contents: Contents = []
    text = as_text(data)
    if text is not None:
        contents.append(TextResourceContents(uri=here, mime_type="text/plain", text=text, _meta=meta))
    else:
        blob = base64.b64encode(data).decode()
        contents.append(BlobResourceContents(uri=here, mime_type="application/octet-stream", blob=blob, _meta=meta))
    if end < piece.total:
        following = output_address(task.task, process_id, stream=name, cursor=end)
        more = f"[… {piece.total - end:,} bytes more: read {following} …]"
        contents.append(TextResourceContents(uri=following, mime_type="text/plain", text=more, _meta=dict(OF_SERVER)))
    return contents
