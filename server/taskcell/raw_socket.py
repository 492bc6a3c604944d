"""Reads a socket directly: a transport, or anyio's own stream, takes turns of the event loop for each piece."""

from __future__ import annotations

import socket

import anyio
import anyio.lowlevel


async def receive(raw: socket.socket, max_bytes: int) -> bytes:
    """The next bytes of a connected socket that does not block. Raises EndOfStream, OSError."""
    has_waited = False
    while True:
        try:
            data = raw.recv(max_bytes)
        except BlockingIOError:
            await anyio.wait_readable(raw)
            has_waited = True
            continue
        if not has_waited:  # bytes that come without a pause must not occupy the event loop
            await anyio.lowlevel.checkpoint()
        if not data:
            raise anyio.EndOfStream
        return data
