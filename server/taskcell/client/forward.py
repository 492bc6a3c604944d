"""A port of a task at a port of this machine's loopback: each connection goes through the task's server."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.abc
import httpcore2
import httpx2
from anyio.abc import SocketAttribute

from taskcell.byte_streams import BROKEN, FORWARD, MAX_TASK_CONNECTIONS, PieceStream, splice
from taskcell.client.beside import beside
from taskcell.client.failures import ArgumentError, CellError, LostError
from taskcell.client.wire import ServerClient, port_path
from taskcell.destinations import MAX_PORT

_UPGRADE = {"connection": "upgrade", "upgrade": FORWARD.decode()}
_BROKEN = (httpcore2.NetworkError, httpcore2.ProtocolError, OSError, anyio.ClosedResourceError)
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Forward:
    """Where a port of a task is reached on this machine."""

    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


@asynccontextmanager
async def forwarded(
    wire: ServerClient, task: str, port: int, local_port: int, on_error: Callable[[CellError], None]
) -> AsyncIterator[Forward]:
    """Arguments as those of `Task.forward`."""
    if not 1 <= port <= MAX_PORT:
        raise ArgumentError(f"The port must be a number from 1 to {MAX_PORT}.")
    try:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=local_port)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise ArgumentError(f"Port {local_port} of this machine cannot be used ({why}); 0 takes a free one.") from None
    places = anyio.Semaphore(MAX_TASK_CONNECTIONS)

    async def carry(program: anyio.abc.ByteStream) -> None:
        async with places:
            try:
                await _carry(wire, port_path(task, port), task, program)
            except CellError as error:
                on_error(error)

    async with listener, beside(lambda: listener.serve(carry)):
        address = listener.extra(SocketAttribute.local_address)  # noqa: S610
        yield Forward("127.0.0.1", int(address[1]))


async def _carry(wire: ServerClient, path: str, task: str, program: anyio.abc.ByteStream) -> None:
    """Carry one connection, which ends as the one in the sandbox does. Raises a CellError when that is not opened."""
    is_whole = False
    try:
        async with wire.stream("GET", path, task=task, headers=_UPGRADE) as answer:
            carrier = PieceStream(_Upgraded(answer))
            with suppress(*BROKEN):
                await splice(program, carrier)
                is_whole = True
    finally:
        if not is_whole:  # a reset, so that the program does not take it for a whole answer
            with suppress(OSError):
                raw = program.extra(SocketAttribute.raw_socket)  # noqa: S610
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        with anyio.CancelScope(shield=True):  # a close waits for nothing
            await program.aclose()


class _Upgraded(anyio.abc.ByteStream):
    """What an answer with the status 101 leaves of its connection."""

    def __init__(self, answer: httpx2.Response) -> None:
        if answer.status_code != 101:
            raise LostError("What answers there does not forward ports; check the server's address.")
        self._stream: Any = answer.extensions["network_stream"]

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Raises EndOfStream, BrokenResourceError."""
        try:
            data: bytes = await self._stream.read(max_bytes)
        except _BROKEN as error:
            raise anyio.BrokenResourceError from error
        if not data:
            raise anyio.EndOfStream
        return data

    async def send(self, item: bytes) -> None:
        """Raises BrokenResourceError."""
        try:
            await self._stream.write(item)
        except _BROKEN as error:
            raise anyio.BrokenResourceError from error

    async def send_eof(self) -> None:
        """The pieces tell it: nothing is sent."""

    async def aclose(self) -> None:
        await self._stream.aclose()
