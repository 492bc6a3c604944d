"""Connections that change their protocol (RFC 9110, 7.8): from the answer 101 on they carry bytes of any kind."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import anyio
import anyio.abc
from starlette.types import Scope

from taskcell.hop_by_hop import Headers
from taskcell.raw_stream import notice_a_vanished_peer

#: A request's scope has a function of this type under `extensions` and this name. It sends 101 with these headers, and
#: returns the connection, which the application closes. It may be called once, and instead of an answer.
UPGRADE = "taskcell.upgrade"
Upgrade = Callable[[Headers], Awaitable[anyio.abc.ByteStream]]
#: Bytes of a client that wait to be read before its connection is read no more.
_UNREAD = 1 << 16


def wanted_protocol(scope: Scope) -> bytes | None:
    """Return the protocol that a request wants to change to, in lower case; None if it wants none, or cannot."""
    headers: Headers = scope["headers"]
    words = {word.strip().lower() for name, value in headers if name == b"connection" for word in value.split(b",")}
    upgrades = [value.strip().lower() for name, value in headers if name == b"upgrade"]
    has_body = any(name in (b"content-length", b"transfer-encoding") for name, _ in headers)
    can = scope["http_version"] == "1.1" and len(upgrades) == 1 and not has_body
    return upgrades[0] if can and b"upgrade" in words else None


class UpgradedConnection(anyio.abc.ByteStream):
    """A client's connection after 101. One task may receive while another one sends.

    Arguments:
        first: bytes that the client has sent behind its request.
        on_lost: called when the connection has gone.
        linger: seconds for the client to take what was sent to it, once this is closed.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        first: bytes,
        on_lost: Callable[[Exception | None], None],
        linger: float,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._linger = linger
        raw = transport.get_extra_info("socket")
        if raw is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
            notice_a_vanished_peer(raw)
        self._reader = asyncio.StreamReader(_UNREAD, loop)
        protocol = _Following(self._reader, on_lost)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        self._transport = transport
        self._writer = asyncio.StreamWriter(transport, protocol, self._reader, loop)
        if first:
            self._reader.feed_data(first)
        transport.resume_reading()

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Raises EndOfStream, OSError."""
        data = await self._reader.read(max_bytes)
        if not data:
            raise anyio.EndOfStream
        return data

    async def send(self, item: bytes) -> None:
        """Raises OSError."""
        self._writer.write(item)
        await self._writer.drain()

    async def send_eof(self) -> None:
        """Raises OSError."""
        if self._writer.can_write_eof():
            self._writer.write_eof()

    async def aclose(self) -> None:
        self._writer.close()
        asyncio.get_running_loop().call_later(self._linger, self._transport.abort)


class _Following(asyncio.StreamReaderProtocol):
    """Says when the connection has gone."""

    def __init__(self, reader: asyncio.StreamReader, on_lost: Callable[[Exception | None], None]) -> None:
        super().__init__(reader)
        self._on_lost = on_lost

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._on_lost(exc)
