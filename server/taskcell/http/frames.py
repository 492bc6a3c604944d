"""The frames of a process's streamed answer: a kind, three zero bytes, a length (u32, big-endian), and so many bytes.

Kinds 1 and 2 are standard output and standard error, as in the streams of container engines; 0 is an object of JSON.
"""

from __future__ import annotations

import json
import struct
from typing import Any

from starlette.types import Send

from taskcell.supervisor.protocol import Stream

FRAMES = "application/vnd.taskcell.process"
FRAME = struct.Struct(">BxxxI")
EVENT = 0


def event_frame(fields: dict[str, Any]) -> bytes:
    data = json.dumps(fields, separators=(",", ":")).encode("ascii")
    return FRAME.pack(EVENT, len(data)) + data


class FrameStream:
    """Sends one answer in frames. `lingers`: what it is about outlives it."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.has_begun = self.lingers = False

    async def begin(self, first: dict[str, Any]) -> None:
        headers = [(b"content-type", FRAMES.encode()), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        self.has_begun = True
        await self.event(first)

    async def output(self, stream: Stream, data: bytes) -> None:
        await self._body(FRAME.pack(stream, len(data)) + data)

    async def event(self, fields: dict[str, Any]) -> None:
        await self._body(event_frame(fields))

    async def end(self, fields: dict[str, Any]) -> None:
        """Send the last event, and end the answer."""
        await self._send({"type": "http.response.body", "body": event_frame(fields), "more_body": False})

    async def _body(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})
