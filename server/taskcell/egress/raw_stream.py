"""A TCP connection, read and written directly: a transport would take turns of the loop for each piece."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress

import anyio
import anyio.abc

from taskcell import raw_socket
from taskcell.destinations import Address


class RawStream(anyio.abc.ByteStream):
    """One task may receive while another one sends.

    Arguments:
        raw: connected, and does not block. It is closed with the stream.
    """

    def __init__(self, raw: socket.socket) -> None:
        self._socket = raw

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Raises EndOfStream, OSError."""
        return await raw_socket.receive(self._socket, max_bytes)

    async def send(self, item: bytes) -> None:
        """Raises OSError."""
        view = memoryview(item)
        while view:
            try:
                view = view[self._socket.send(view) :]
            except BlockingIOError:
                await anyio.wait_writable(self._socket)

    async def send_eof(self) -> None:
        with suppress(OSError):  # the other side has closed already
            self._socket.shutdown(socket.SHUT_WR)

    async def aclose(self) -> None:
        if self._socket.fileno() >= 0:
            anyio.notify_closing(self._socket)
        self._socket.close()


async def connect_raw(address: Address, port: int) -> RawStream:
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
