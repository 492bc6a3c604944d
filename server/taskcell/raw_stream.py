"""A connected socket, read and written directly: a transport would take turns of the event loop for each piece."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from contextlib import suppress
from typing import Protocol, runtime_checkable

import anyio
import anyio.abc
import anyio.lowlevel

from taskcell.destinations import Address

#: Seconds between two attempts to connect to a UNIX socket whose listener has no place free.
_RETRY = 0.01
#: Seconds without a word after which the kernel asks whether the other machine is still there, and between two such
#: questions; four of them without an answer break the connection. Routers forget what is silent for minutes.
_KEEP_ALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}


@runtime_checkable
class SendsNow(Protocol):
    """A stream that can send without a wait."""

    def send_now(self, item: bytes) -> int:
        """Return how many bytes it took. Raises OSError."""


class RawStream(anyio.abc.ByteStream):
    """One task may receive while another one sends.

    The event loop goes on to watch it between two pieces: to begin anew for each took more time than the piece itself.

    Arguments:
        raw: connected, and does not block. It is closed with the stream.
    """

    def __init__(self, raw: socket.socket) -> None:
        self._socket = raw
        self._loop = asyncio.get_running_loop()
        self._reader: asyncio.Future[None] | None = None
        self._is_watched = False

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Raises EndOfStream, OSError; ClosedResourceError when it is closed meanwhile."""
        has_waited = False
        while True:
            try:
                data = self._socket.recv(max_bytes)
            except BlockingIOError:
                await self._readable()
                has_waited = True
                continue
            if not has_waited:  # bytes that come without a pause must not occupy the event loop
                await anyio.lowlevel.checkpoint()
            if not data:
                raise anyio.EndOfStream
            return data

    async def _readable(self) -> None:
        self._reader = self._loop.create_future()
        if not self._is_watched:
            self._loop.add_reader(self._socket, self._on_readable)
            self._is_watched = True
        try:
            await self._reader
        finally:
            self._reader = None
        if self._socket.fileno() < 0:
            raise anyio.ClosedResourceError

    def _on_readable(self) -> None:
        if self._reader is None:  # its reader is busy with what came before, and looks by itself
            self._unwatch()
        elif not self._reader.done():
            self._reader.set_result(None)

    def _unwatch(self) -> None:
        if self._is_watched:
            self._is_watched = False
            self._loop.remove_reader(self._socket)

    def send_now(self, item: bytes | memoryview) -> int:
        """Send what goes without a wait; return how many bytes that was. Raises OSError."""
        with suppress(BlockingIOError):
            return self._socket.send(item)
        return 0

    async def send(self, item: bytes) -> None:
        """Raises OSError."""
        view = memoryview(item)
        while view:
            sent = self.send_now(view)
            view = view[sent:]
            if not sent:
                await anyio.wait_writable(self._socket)

    async def send_eof(self) -> None:
        with suppress(OSError):  # the other side has closed already
            self._socket.shutdown(socket.SHUT_WR)

    async def aclose(self) -> None:
        self._unwatch()
        if self._socket.fileno() >= 0:
            anyio.notify_closing(self._socket)
        self._socket.close()
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


async def connect_unix(path: str) -> RawStream:
    """Connect to a UNIX socket. Raises OSError. The caller bounds the wait."""
    raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        raw.setblocking(False)
        while True:
            try:
                raw.connect(path)
            except BlockingIOError:
                await anyio.sleep(_RETRY)
            else:
                return RawStream(raw)
    except BaseException:
        raw.close()
        raise


async def connect_tcp(address: Address, port: int) -> RawStream:
    """Connect to an address. Raises OSError. The caller bounds the wait."""
    raw = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
    try:
        raw.setblocking(False)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        found = raw.connect_ex((str(address), port))
        if found == errno.EINPROGRESS:
            await anyio.wait_writable(raw)
            found = raw.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if found:
            raise OSError(found, os.strerror(found))
    except BaseException:
        raw.close()
        raise
    return RawStream(raw)


def notice_a_vanished_peer(raw: socket.socket) -> None:
    """Have the kernel break a silent TCP connection whose other machine sleeps, or has gone."""
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEP_ALIVE.items():
        if hasattr(socket, name):  # not every system has each
            raw.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
