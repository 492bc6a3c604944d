"""The byte stream of a pods/exec: a WebSocket (RFC 6455) with Kubernetes' subprotocol, which has channels."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from http import HTTPStatus
from urllib.parse import quote, urlsplit

import anyio
import anyio.abc
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidState, InvalidStatus
from websockets.frames import DATA_OPCODES, Frame, Opcode
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI, parse_uri

from taskcell.engine.kubernetes.api import Api
from taskcell.engine.kubernetes.connecting import connect
from taskcell.errors import EngineUnavailable, SandboxLost

#: Seconds from connecting to the API server's "101": through it to the kubelet, and the start of a process there.
OPEN_TIMEOUT = 30.0
PROTOCOL = Subprotocol("v4.channel.k8s.io")
#: Channels of the subprotocol.
STDIN_STREAM, STDOUT, STDERR, ERROR_STREAM = range(4)
#: Bytes in one message: the API server and the kubelet read whole messages.
EXEC_PIECE = 1 << 15
#: Bytes of one message that are accepted: the kubelet sends at most 32 KiB.
MESSAGE_MAX = 1 << 20
#: Bytes of the bridge's stderr that are kept for an error.
_STDERR_KEPT = 4096
_RECEIVE_SIZE = 1 << 17
_BUSY = frozenset({429, 502, 503, 504})


async def open_pod_exec(api: Api, pod: str, container: str, argv: tuple[str, ...]) -> PodExecStream:
    """Start a program in a container, and take over its stdin and stdout.

    Raises:
        EngineUnavailable: the API server cannot be reached.
        SandboxLost: it refuses, as it does where the container does not run.
    """
    at = urlsplit(api.cluster.server)
    kind, target = "ws" if at.scheme == "http" else "wss", _target(api.path("pods", pod), container, argv)
    uri = parse_uri(f"{kind}://{at.netloc}{at.path.rstrip('/')}{target}")
    try:
        with anyio.fail_after(OPEN_TIMEOUT):
            try:
                return await _opened(api, uri)
            except _Unauthorized:  # what identifies this server may just have expired
                api.cluster.renew()
                return await _opened(api, uri)
    except _Unauthorized:
        raise EngineUnavailable("Kubernetes refuses the token of who opens a stream (HTTP 401).") from None
    except TimeoutError:
        raise EngineUnavailable(f"The Kubernetes API did not open a stream within {OPEN_TIMEOUT:g} s.") from None
    except (OSError, ssl.SSLError, anyio.EndOfStream, anyio.BrokenResourceError) as error:
        why = str(error) or type(error).__name__
        raise EngineUnavailable(f"The Kubernetes API could not be reached for a stream: {why}.") from error


class _Unauthorized(Exception):
    """The API server does not know who asks."""


async def _opened(api: Api, uri: WebSocketURI) -> PodExecStream:
    headers = [*(await api.authorization()).items(), *api.cluster.headers]
    websocket = ClientProtocol(uri, subprotocols=[PROTOCOL], max_size=MESSAGE_MAX)
    stream = await connect(uri, api.cluster)
    try:
        await _upgrade(stream, websocket, headers)
    except BaseException:
        await anyio.aclose_forcefully(stream)
        raise
    return PodExecStream(stream, websocket)


def _target(path: str, container: str, argv: tuple[str, ...]) -> str:
    words = "&".join(f"command={quote(word, safe='')}" for word in argv)
    return f"{path}/exec?container={quote(container, safe='')}&stdin=true&stdout=true&stderr=true&{words}"


async def _upgrade(stream: anyio.abc.ByteStream, websocket: ClientProtocol, headers: Sequence[tuple[str, str]]) -> None:
    request = websocket.connect()
    for key, value in headers:
        request.headers[key] = value
    websocket.send_request(request)
    await stream.send(b"".join(websocket.data_to_send()))
    while not (websocket.events or websocket.handshake_exc):
        websocket.receive_data(await stream.receive(_RECEIVE_SIZE))
    if isinstance(websocket.handshake_exc, InvalidStatus):
        status = websocket.handshake_exc.response.status_code
        if status == HTTPStatus.UNAUTHORIZED:
            raise _Unauthorized
        if status in _BUSY:
            raise EngineUnavailable(f"The Kubernetes API is too busy to open a stream (HTTP {status}). Call again.")
        raise SandboxLost(f"Kubernetes refused the sandbox's channel with HTTP {status}.")
    if websocket.handshake_exc is not None:
        raise SandboxLost(
            f"What answers as the Kubernetes API does not speak WebSocket: {websocket.handshake_exc}. The person who "
            "runs the server must look at what stands before the API."
        )
    if websocket.subprotocol != PROTOCOL:
        raise SandboxLost(f"What answers as the Kubernetes API does not speak {PROTOCOL}.")


class PodExecStream(anyio.abc.ByteStream):
    """Stdin and stdout of the program. What it writes to stderr, and how it ended, is in `said`.

    Arguments:
        websocket: open; it may hold what came with its opening.
    """

    def __init__(self, stream: anyio.abc.ByteStream, websocket: ClientProtocol) -> None:
        self._stream = stream
        self._websocket = websocket
        self._out = bytearray()
        self._channel = STDOUT
        self._sending = anyio.Lock(fast_acquire=True)
        self.said = b""
        self._take_all()

    # --- receiving -----------------------------------------------------------------------------------------------

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Return stdout. Raises EndOfStream, BrokenResourceError."""
        while not self._out:
            if self._websocket.close_rcvd is not None:
                raise anyio.EndOfStream
            if self._websocket.parser_exc is not None:
                raise anyio.BrokenResourceError from self._websocket.parser_exc
            await self._more()
        data = bytes(self._out[:max_bytes])
        del self._out[:max_bytes]
        return data

    async def _more(self) -> None:
        """Wait for bytes, take the messages that they complete, and answer pings. A wait may be cancelled."""
        try:
            data = await self._stream.receive(_RECEIVE_SIZE)
        except ssl.SSLError as error:
            raise anyio.BrokenResourceError from error
        self._websocket.receive_data(data)
        self._take_all()
        await self._flush()

    def _take_all(self) -> None:
        for event in self._websocket.events_received():
            if isinstance(event, Frame) and event.opcode in DATA_OPCODES and event.data:
                self._take(event)

    def _take(self, frame: Frame) -> None:
        """Take a message, or a piece of one: the first has a byte that names the channel."""
        body = memoryview(frame.data)
        if frame.opcode is not Opcode.CONT:
            self._channel, body = body[0], body[1:]
        if self._channel == STDOUT:
            self._out += body
        elif self._channel in (STDERR, ERROR_STREAM):
            self.said = (self.said + bytes(body))[-_STDERR_KEPT:]

    # --- sending -------------------------------------------------------------------------------------------------

    async def send(self, item: bytes) -> None:
        for at in range(0, len(item), EXEC_PIECE):
            try:
                self._websocket.send_binary(bytes([STDIN_STREAM]) + item[at : at + EXEC_PIECE])
            except InvalidState as error:  # the other end has closed it
                raise anyio.BrokenResourceError from error
            await self._flush()

    async def _flush(self) -> None:
        data = b"".join(self._websocket.data_to_send())
        if not data:
            return
        async with self._sending:  # whoever comes first goes first
            try:
                await self._stream.send(data)
            except ssl.SSLError as error:
                raise anyio.BrokenResourceError from error

    async def send_eof(self) -> None:
        """The subprotocol has no end of stdin; the channel needs none."""
        raise NotImplementedError

    async def aclose(self) -> None:
        await self._stream.aclose()
