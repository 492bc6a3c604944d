"""The kept output of a process as a resource, page by page where it is large."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import parse_qsl, unquote

from mcp_types import BlobResourceContents, ResourceTemplate, TextResourceContents

from taskcell.errors import UnknownProcess, UnknownResource
from taskcell.gateway.gateway import Gateway
from taskcell.mcp.resources.routes import Contents, Route
from taskcell.model import MIB, TaskKey
from taskcell.process.kept_output import Piece
from taskcell.process.output import whole_characters
from taskcell.resource_uris import output_address
from taskcell.supervisor.protocol import Stream

#: Bytes of one page at most; as base64 it is still well below what clients take in one message.
MAX_PAGE = MIB
TEMPLATE = "taskcell://tasks/{task_id}/processes/{process_id}/output{?stream,cursor,limit}"
_STREAMS = {"stdout": Stream.STDOUT, "stderr": Stream.STDERR}


def output_resources(gateway: Gateway) -> Route:
    """The route of `processes`."""

    async def read(task: TaskKey, rest: str, uri: str) -> Contents:
        path, _, query = rest.partition("?")
        process_id, _, what = path.partition("/")
        if what != "output":
            raise UnknownResource("A process has one resource, its output: `…/processes/{process_id}/output`.")
        streams, cursor, limit = _parse(query)
        try:
            is_skill, pieces = await gateway.output(task, unquote(process_id), streams or list(Stream), cursor, limit)
        except UnknownProcess as error:
            raise UnknownResource(str(error)) from None
        contents: Contents = []
        for stream, piece in pieces.items():
            # The terminal's standard error is part of its standard output.
            if stream is Stream.STDOUT or streams or (is_skill and piece.total):
                contents += _contents(task, unquote(process_id), stream, piece, uri)
        return contents

    template = ResourceTemplate(
        uri_template=TEMPLATE,
        name="output",
        title="Output of a process",
        description=(
            "The kept output of a command: its bytes from `cursor` on, at most `limit` (default and maximum "
            f"{MAX_PAGE}). Where there is more, the last part names the next page. `stream` is stdout or stderr; "
            "without it, both are read."
        ),
        mime_type="text/plain",
    )
    return Route("processes", (template,), read)


def _parse(query: str) -> tuple[list[Stream], int, int]:
    """Streams, cursor and limit. Raises UnknownResource."""
    values = dict(parse_qsl(query, keep_blank_values=True))
    names = [values.pop("stream")] if "stream" in values else []
    numbers = [values.pop("cursor", "0"), values.pop("limit", str(MAX_PAGE))]
    if values or not all(name in _STREAMS for name in names):
        raise UnknownResource("The query may have stream (stdout or stderr), cursor and limit.")
    if not all(number.isascii() and number.isdigit() and len(number) < 17 for number in numbers):
        raise UnknownResource("cursor and limit are numbers of bytes.")
    cursor, limit = map(int, numbers)
    if not 0 < limit <= MAX_PAGE:
        raise UnknownResource(f"limit is at least 1 and at most {MAX_PAGE} bytes; what follows is another page.")
    return [_STREAMS[name] for name in names], cursor, limit


def _contents(task: TaskKey, process_id: str, stream: Stream, piece: Piece, uri: str) -> Contents:
    """One page, as text where it is text and else as bytes; where there is another page, a part that names it."""
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
    try:
        contents.append(TextResourceContents(uri=here, mime_type="text/plain", text=data.decode(), _meta=meta))
    except UnicodeDecodeError:
        blob = base64.b64encode(data).decode()
        contents.append(BlobResourceContents(uri=here, mime_type="application/octet-stream", blob=blob, _meta=meta))
    if end < piece.total:
        following = output_address(task.task, process_id, stream=name, cursor=end)
        more = f"[… {piece.total - end:,} bytes more: read {following} …]"
        contents.append(TextResourceContents(uri=following, mime_type="text/plain", text=more))
    return contents
