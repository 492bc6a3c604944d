"""The byte stream of a pods/exec: a WebSocket (RFC 6455) with Kubernetes' subprotocol, which has channels."""

from __future__ import annotations

import base64
import hashlib
import secrets
import ssl
import struct
from urllib.parse import quote, urlsplit

import anyio
import anyio.abc
import h11
from anyio.streams.tls import TLSStream

from taskcell.engine.kubernetes.api import Api
from taskcell.errors import EngineUnavailable, SandboxLost

#: Seconds from connecting to the API server's "101": through it to the kubelet, and the start of a process there.
OPEN_TIMEOUT = 30.0
PROTOCOL = "v4.channel.k8s.io"
#: Channels of the subprotocol.
STDIN_STREAM, STDOUT, STDERR, ERROR_STREAM = range(4)
#: Bytes in one message: the API server and the kubelet read whole messages.
EXEC_PIECE = 1 << 15
#: Bytes of one message that are accepted: the kubelet sends at most 32 KiB.
MESSAGE_MAX = 1 << 20
#: Bytes of the bridge's stderr that are kept for an error.
_STDERR_KEPT = 4096
_RECEIVE_SIZE = 1 << 17
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10
_FIN, _MASKED = 0x80, 0x80
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


async def open_pod_exec(api: Api, pod: str, container: str, argv: tuple[str, ...]) -> PodExecStream:
    """Start a program in a container, and take over its stdin and stdout.

    Raises:
        EngineUnavailable: the API server cannot be reached.
        SandboxLost: it refuses, as it does where the container does not run.
    """
    try:
        with anyio.fail_after(OPEN_TIMEOUT):
            stream = await _connect(api.cluster.server, api.cluster.tls)
            try:
                return await _upgrade(stream, api, _target(api.path("pods", pod), container, argv))
            except BaseException:
                await anyio.aclose_forcefully(stream)
                raise
    except TimeoutError:
        raise EngineUnavailable(f"The Kubernetes API did not open a stream within {OPEN_TIMEOUT:g} s.") from None
    except (OSError, ssl.SSLError, anyio.EndOfStream, anyio.BrokenResourceError, h11.RemoteProtocolError) as error:
        raise EngineUnavailable(f"The Kubernetes API could not be reached for a stream: {error}.") from error


async def _connect(server: str, tls: ssl.SSLContext) -> anyio.abc.ByteStream:
    at = urlsplit(server)
    assert at.hostname is not None
    raw = await anyio.connect_tcp(at.hostname, at.port or 443)
    return await TLSStream.wrap(raw, hostname=at.hostname, ssl_context=tls, standard_compatible=False)


def _target(path: str, container: str, argv: tuple[str, ...]) -> str:
    words = "&".join(f"command={quote(word, safe='')}" for word in argv)
    return f"{path}/exec?container={quote(container, safe='')}&stdin=true&stdout=true&stderr=true&{words}"


async def _upgrade(stream: anyio.abc.ByteStream, api: Api, target: str) -> PodExecStream:
    key = base64.b64encode(secrets.token_bytes(16))
    http = h11.Connection(h11.CLIENT)
    headers = [
        ("Host", urlsplit(api.cluster.server).netloc),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", key.decode()),
        ("Sec-WebSocket-Protocol", PROTOCOL),
        *(await api.authorization()).items(),
    ]
    request = h11.Request(method="GET", target=target, headers=headers)
    await stream.send((http.send(request) or b"") + (http.send(h11.EndOfMessage()) or b""))
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await stream.receive(_RECEIVE_SIZE))
        elif isinstance(event, h11.InformationalResponse) and event.status_code == 101:
            accepted = dict(event.headers).get(b"sec-websocket-accept", b"")
            if accepted != base64.b64encode(hashlib.sha1(key + _GUID.encode(), usedforsecurity=False).digest()):
                raise SandboxLost("What answers as the Kubernetes API does not speak WebSocket.")
            return PodExecStream(stream, http.trailing_data[0])
        elif isinstance(event, h11.Response):
            raise SandboxLost(f"Kubernetes refused the sandbox's channel with HTTP {event.status_code}.")
        elif event is not h11.PAUSED and not isinstance(event, h11.InformationalResponse):
            raise SandboxLost("Kubernetes answered the sandbox's channel with something else than HTTP.")


class PodExecStream(anyio.abc.ByteStream):
    """Stdin and stdout of the program. What it writes to stderr, and how it ended, is in `said`."""

    def __init__(self, stream: anyio.abc.ByteStream, buffer: bytes) -> None:
        self._stream = stream
        self._buffer = bytearray(buffer)
        self._out = bytearray()
        self._sending = anyio.Lock()
        self.said = b""

    # --- receiving -----------------------------------------------------------------------------------------------

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Return stdout. Raises EndOfStream, BrokenResourceError."""
        while not self._out:
            await self._take_message()
        data = bytes(self._out[:max_bytes])
        del self._out[:max_bytes]
        return data

    async def _need(self, size: int) -> None:
        while len(self._buffer) < size:
            try:
                self._buffer += await self._stream.receive(_RECEIVE_SIZE)
            except ssl.SSLError as error:
                raise anyio.BrokenResourceError from error

    async def _take_message(self) -> None:
        """Take one frame. Nothing is taken out of the buffer before all of it is there: a wait may be cancelled."""
        await self._need(2)
        size, at = self._buffer[1] & 0x7F, 2
        if size > 125:
            at = 4 if size == 126 else 10
            await self._need(at)
            size = int.from_bytes(self._buffer[2:at], "big")
        if size > MESSAGE_MAX:
            raise anyio.BrokenResourceError("a message is too large")
        await self._need(at + size)
        kind, body = self._buffer[0] & 0x0F, bytes(self._buffer[at : at + size])
        del self._buffer[: at + size]
        if kind == _CLOSE:
            raise anyio.EndOfStream
        if kind == _PING:
            await self._send(_PONG, body)
        elif kind in (_CONTINUATION, _TEXT, _BINARY) and body:
            self._take(body)

    def _take(self, body: bytes) -> None:
        if body[0] == STDOUT:
            self._out += body[1:]
        elif body[0] in (STDERR, ERROR_STREAM):
            self.said = (self.said + body[1:])[-_STDERR_KEPT:]

    # --- sending -------------------------------------------------------------------------------------------------

    async def send(self, item: bytes) -> None:
        for at in range(0, len(item), EXEC_PIECE):
            await self._send(_BINARY, bytes([STDIN_STREAM]) + item[at : at + EXEC_PIECE])

    async def _send(self, kind: int, body: bytes) -> None:
        frame = _frame(kind, body, secrets.token_bytes(4))
        async with self._sending:
            try:
                await self._stream.send(frame)
            except ssl.SSLError as error:
                raise anyio.BrokenResourceError from error

    async def send_eof(self) -> None:
        """The subprotocol has no end of stdin; the channel needs none."""
        raise NotImplementedError

    async def aclose(self) -> None:
        await self._stream.aclose()


def _frame(kind: int, body: bytes, mask: bytes) -> bytes:
    """Encode one frame of a client (RFC 6455, 5.2)."""
    size = len(body)
    if size < 126:
        head = bytes([_FIN | kind, _MASKED | size])
    elif size < 1 << 16:
        head = bytes([_FIN | kind, _MASKED | 126]) + struct.pack(">H", size)
    else:
        head = bytes([_FIN | kind, _MASKED | 127]) + struct.pack(">Q", size)
    pad = (mask * (size // 4 + 1))[:size]
    masked = (int.from_bytes(body, "big") ^ int.from_bytes(pad, "big")).to_bytes(size, "big")
    return head + mask + masked
