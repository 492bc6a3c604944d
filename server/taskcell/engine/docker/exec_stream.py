"""The byte stream of a `docker exec`: an HTTP connection that the engine turns into a raw one.

It is opened on the event loop and not by the docker package, whose own streams block.
"""

from __future__ import annotations

import json
import ssl
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import anyio
import anyio.abc
import h11
import structlog
from anyio.streams.stapled import StapledByteStream

from taskcell.engine.docker.endpoint import Endpoint
from taskcell.errors import EngineUnavailable, SandboxLost
from taskcell.raw_stream import RawStream, connect_unix

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
    except (OSError, h11.RemoteProtocolError, anyio.EndOfStream, anyio.BrokenResourceError) as error:
        raise EngineUnavailable(f"The engine could not be reached for a stream: {error}.") from error


async def _connect(endpoint: Endpoint) -> anyio.abc.ByteStream:
    parts = urlsplit(endpoint.url)
    if parts.scheme == "unix":
        return await connect_unix(endpoint.url.removeprefix("unix://"))
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
    return _SshStream(process.stdin, process.stdout, process)


@dataclass(eq=False)
class _SshStream(StapledByteStream):
    """The stdin and stdout of an ssh, which ends with them: without a network, it would wait for its own time-out."""

    process: anyio.abc.Process

    async def aclose(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()
        await super().aclose()


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
            return ExecStream(stream, bytearray(http.trailing_data[0]))
        elif isinstance(event, h11.Response):
            raise SandboxLost(f"The engine refused the sandbox's channel (HTTP {event.status_code}).")
        elif not isinstance(event, h11.InformationalResponse):
            raise EngineUnavailable("The engine closed the connection instead of opening a stream.")


@dataclass(slots=True)
class ExecStream(anyio.abc.ByteStream):
    """stdin and stdout of an exec; its stderr goes to the log.

    Arguments:
        _received: bytes that came before the first `receive`.
    """

    _stream: anyio.abc.ByteStream
    _received: bytearray
    _header: bytearray = field(default_factory=bytearray)
    _piece_left: int = 0
    _piece_kind: int = _STDOUT
    _stderr: bytearray = field(default_factory=bytearray)

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """The next bytes of stdout. Raises anyio.EndOfStream."""
        while True:
            try:
                stdout = self._take(await self._receive(max_bytes))
            except anyio.EndOfStream:
                if self._stderr:
                    log.info("a sandbox's bridge said", stderr=self._stderr.decode("utf-8", "replace"))
                raise
            if stdout:
                return stdout

    async def _receive(self, max_bytes: int) -> bytes:
        if self._received:
            data = bytes(self._received[:max_bytes])
            del self._received[:max_bytes]
            return data
        return await self._stream.receive(max_bytes)

    def _take(self, data: bytes) -> bytes:
        """Take the engine's pieces apart, and return what is stdout in them."""
        view, stdout = memoryview(data), []
        while view:
            if not self._piece_left and not self._header and len(view) >= _PIECE.size:
                self._piece_kind, self._piece_left = _PIECE.unpack_from(view)
                view = view[_PIECE.size :]
                continue
            if not self._piece_left:
                missing = _PIECE.size - len(self._header)
                self._header += view[:missing]
                view = view[missing:]
                if len(self._header) == _PIECE.size:
                    self._piece_kind, self._piece_left = _PIECE.unpack(self._header)
                    self._header.clear()
                continue
            piece, view = view[: self._piece_left], view[self._piece_left :]
            self._piece_left -= len(piece)
            if self._piece_kind == _STDOUT:
                stdout.append(piece)
            else:
                self._stderr += piece[: max(0, _STDERR_KEPT - len(self._stderr))]
        return bytes(stdout[0]) if len(stdout) == 1 else b"".join(stdout)

    def send_now(self, item: bytes) -> int:
        """Send what the engine takes without a wait; return how many bytes that was. Raises OSError."""
        return self._stream.send_now(item) if isinstance(self._stream, RawStream) else 0

    async def send(self, item: bytes) -> None:
        await self._stream.send(item)

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()
