"""The byte stream of a `docker exec`: an HTTP connection that the engine turns into a raw one.

It is opened on the event loop and not by the docker package, whose own streams block.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import anyio
import anyio.abc
import h11
import structlog
from anyio.abc import SocketAttribute
from anyio.streams.stapled import StapledByteStream

from taskcell import raw_socket
from taskcell.engine.docker.endpoint import Endpoint
from taskcell.errors import EngineUnavailable, SandboxLost

log = structlog.get_logger(__name__)

#: From connecting to the engine's "101": starting an exec takes the engine up to some seconds on a busy machine.
OPEN_TIMEOUT = 30.0
#: The engine's own header before each piece of output: stream, three zeros, length (Docker API, "Attach", multiplexed).
_PIECE = struct.Struct(">B3xI")
_STDOUT = 1
#: Bytes of the bridge's stderr that are kept for the log.
_STDERR_KEPT = 4096
_RECEIVE_SIZE = 1 << 17


async def open_exec(endpoint: Endpoint, api_version: str, exec_id: str) -> ExecStream:
    """Start the exec and take over its stdin and stdout.

    Raises:
        EngineUnavailable: the engine cannot be reached.
        SandboxLost: it refuses.
    """
    try:
        with anyio.fail_after(OPEN_TIMEOUT):
            stream = await _connect(endpoint)
            try:
                return await _upgrade(stream, api_version, exec_id)
            except BaseException:
                await anyio.aclose_forcefully(stream)
                raise
    except TimeoutError:
        raise EngineUnavailable(f"The engine did not open a stream within {OPEN_TIMEOUT:g} s.") from None
    except (OSError, anyio.EndOfStream, anyio.BrokenResourceError) as error:
        raise EngineUnavailable(f"The engine could not be reached for a stream: {error}.") from error


async def _connect(endpoint: Endpoint) -> anyio.abc.ByteStream:
    parts = urlsplit(endpoint.url)
    if parts.scheme == "unix":
        return await anyio.connect_unix(endpoint.url.removeprefix("unix://"))
    if parts.scheme in {"tcp", "http", "https"} and parts.hostname:
        port = parts.port or (2376 if endpoint.tls else 2375)
        if endpoint.tls is None:
            return await anyio.connect_tcp(parts.hostname, port)
        context = _ssl_context(endpoint)
        return await anyio.connect_tcp(parts.hostname, port, ssl_context=context, tls_standard_compatible=False)
    if parts.scheme == "ssh" and parts.hostname:
        return await _connect_ssh(parts.hostname, parts.port, parts.username)
    raise EngineUnavailable(f"The engine's address {endpoint.shown} is not one of unix://, tcp:// and ssh://.")


def _ssl_context(endpoint: Endpoint) -> ssl.SSLContext:
    tls = endpoint.tls
    assert tls is not None
    context = ssl.create_default_context(cafile=tls.ca_cert)
    if tls.cert:
        context.load_cert_chain(*tls.cert)
    if not tls.verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def _connect_ssh(host: str, port: int | None, user: str | None) -> anyio.abc.ByteStream:
    argv = ["ssh", "-T", *(["-p", str(port)] if port else []), "--", f"{user}@{host}" if user else host]
    process = await anyio.open_process([*argv, "docker", "system", "dial-stdio"], stderr=None)
    assert process.stdin is not None
    assert process.stdout is not None
    return StapledByteStream(process.stdin, process.stdout)


async def _upgrade(stream: anyio.abc.ByteStream, api_version: str, exec_id: str) -> ExecStream:
    body = json.dumps({"Detach": False, "Tty": False}).encode()
    http = h11.Connection(h11.CLIENT)
    request = h11.Request(
        method="POST",
        target=f"/v{api_version}/exec/{exec_id}/start",
        headers=[
            ("Host", "docker"),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Connection", "Upgrade"),
            ("Upgrade", "tcp"),
        ],
    )
    pieces = [http.send(request), http.send(h11.Data(data=body)), http.send(h11.EndOfMessage())]
    await stream.send(b"".join(piece for piece in pieces if piece))
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await stream.receive(_RECEIVE_SIZE))
        elif isinstance(event, h11.InformationalResponse) and event.status_code == 101:
            is_plain = isinstance(stream, anyio.abc.UNIXSocketStream)
            raw = stream.extra(SocketAttribute.raw_socket) if is_plain else None  # noqa: S610 - this is not Django
            return ExecStream(stream, bytearray(http.trailing_data[0]), raw)
        elif isinstance(event, h11.Response):
            raise SandboxLost(f"The engine refused the sandbox's channel (HTTP {event.status_code}).")
        elif not isinstance(event, h11.InformationalResponse):
            raise EngineUnavailable("The engine closed the connection instead of opening a stream.")


@dataclass(slots=True)
class ExecStream(anyio.abc.ByteStream):
    """stdin and stdout of an exec; its stderr goes to the log.

    Arguments:
        _socket: of a UNIX stream. It is read and written directly: the turns of the event loop that anyio takes before
            each attempt cost a tenth of a short command's time in the server.
    """

    _stream: anyio.abc.ByteStream
    _buffer: bytearray
    _socket: socket.socket | None = None
    _piece_left: int = 0
    _piece_kind: int = _STDOUT
    _stderr: bytearray = field(default_factory=bytearray)

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """The next bytes of stdout. Raises anyio.EndOfStream."""
        while True:
            data = self._take(max_bytes)
            if data:
                return data
            try:
                self._buffer += await self._receive()
            except anyio.EndOfStream:
                if self._stderr:
                    log.info("a sandbox's bridge said", stderr=self._stderr.decode("utf-8", "replace"))
                raise

    async def _receive(self) -> bytes:
        if self._socket is None:
            return await self._stream.receive(_RECEIVE_SIZE)
        return await raw_socket.receive(self._socket, _RECEIVE_SIZE)

    def _take(self, max_bytes: int) -> bytes:
        out = bytearray()
        at, size = 0, len(self._buffer)
        while at < size and len(out) < max_bytes:
            if self._piece_left == 0:
                if size - at < _PIECE.size:
                    break
                self._piece_kind, self._piece_left = _PIECE.unpack_from(self._buffer, at)
                at += _PIECE.size
                continue
            end = min(size, at + min(self._piece_left, max_bytes - len(out)))
            self._piece_left -= end - at
            if self._piece_kind == _STDOUT:
                out += self._buffer[at:end]
            else:
                self._stderr += self._buffer[at : min(end, at + _STDERR_KEPT - len(self._stderr))]
            at = end
        del self._buffer[:at]
        return bytes(out)

    async def send(self, item: bytes) -> None:
        sent = 0
        if self._socket is not None:
            with suppress(BlockingIOError):
                sent = self._socket.send(item)
        if sent < len(item):
            await self._stream.send(item[sent:])

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()
