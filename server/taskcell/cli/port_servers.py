"""Servers that open connections to ports of their tasks: one of this machine by its local door, or one over HTTP."""

from __future__ import annotations

import functools
import json
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import SplitResult, quote

import anyio
import anyio.abc
import h11
from anyio.abc import SocketAttribute

from taskcell.byte_streams import FORWARD, PieceStream
from taskcell.cli.in_task import door_of
from taskcell.errors import TaskcellError
from taskcell.hop_by_hop import Headers
from taskcell.http.ports import PORTS_PATH
from taskcell.model import LOCAL_PRINCIPAL, TaskKey
from taskcell.raw_stream import notice_a_vanished_peer
from taskcell.secret import Hidden
from taskcell.socket_name import short_path
from taskcell.text import MESSAGE_SHOWN, plain_line

#: Seconds for the server to open a connection: twice what it takes at most.
DOOR_TIMEOUT = 20.0
#: Bytes of the server's answer.
_MAX_ANSWER = 64 << 10
_UPGRADE = ((b"connection", b"upgrade"), (b"upgrade", FORWARD))
_UNREACHED = (OSError, UnicodeError, anyio.BrokenResourceError, anyio.EndOfStream)


class NotForwarded(TaskcellError):
    """The server does not open a connection; the text is its sentence."""


class PortServer(Protocol):
    """A server that has, or may have, the task whose port is forwarded."""

    async def find(self, task: str, port: int) -> None:
        """Make sure that the server has the task and lets this person in. Raises NotForwarded."""

    async def open(self, task: str, port: int) -> PieceStream:
        """Connect to a port. Raises NotForwarded, OSError, BrokenResourceError."""


class LocalServer:
    """Whichever server of this machine's user has the task.

    Arguments:
        folder: the deployment's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._door: Path | None = None

    async def find(self, task: str, port: int) -> None:
        """Raises NotForwarded."""
        self._door = await door_of(self._folder, TaskKey(LOCAL_PRINCIPAL, task))
        if self._door is None:
            raise NotForwarded(f"No running server has the task {task!r}; `taskcell ps` lists what there is.")

    async def open(self, task: str, port: int) -> PieceStream:
        """Raises NotForwarded, OSError, BrokenResourceError."""
        if self._door is None:
            await self.find(task, port)
        try:
            carrier = await self._connect()
        except OSError:  # the server has gone; another one may have the task by now
            await self.find(task, port)
            carrier = await self._connect()
        return await _opened(carrier, f"{PORTS_PATH}{quote(task, safe='')}/{port}", [(b"host", b"localhost")])

    async def _connect(self) -> anyio.abc.ByteStream:
        assert self._door is not None
        with short_path(self._door) as name:
            return await anyio.connect_unix(name)


@dataclass
class RemoteServer:
    """A server over HTTP. Redirections are not followed: a token is for one host.

    Arguments:
        url: as clients name it, with or without `/mcp`.
    """

    url: SplitResult
    token: Hidden = field(default_factory=Hidden)

    @functools.cached_property
    def _tls(self) -> ssl.SSLContext | None:
        """Made once: it reads the certificates that this machine trusts."""
        if self.url.scheme != "https":
            return None
        context = ssl.create_default_context()
        context.set_alpn_protocols(["http/1.1"])
        return context

    @property
    def _headers(self) -> list[tuple[bytes, bytes]]:
        signed = [(b"authorization", f"Bearer {self.token.value}".encode())] if self.token.value else []
        return [(b"host", self.url.netloc.encode("idna")), *signed]

    def _target(self, task: str, port: int) -> str:
        base = self.url.path.removesuffix("/").removesuffix("/mcp").removesuffix("/")
        return f"{quote(base, safe='/%')}{PORTS_PATH}{quote(task, safe='')}/{port}"

    async def find(self, task: str, port: int) -> None:
        """Nothing in the sandbox notices it. Raises NotForwarded."""
        target = self._target(task, port)
        with anyio.move_on_after(DOOR_TIMEOUT):
            carrier = await self._connect()
            try:
                answer = await _asked(carrier, target, [*self._headers, (b"connection", b"close")])
            except _UNREACHED:
                raise self._unreached("it closed the connection") from None
            finally:
                with anyio.CancelScope(shield=True):  # a close waits for nothing
                    await carrier.aclose()
            place = answer.headers.get(b"location", b"").decode("latin-1")
            if answer.status == 308 and place.partition("?")[0].endswith(f"/{port}/"):
                return
            if 300 <= answer.status < 400:
                place = plain_line(place[:MESSAGE_SHOWN])
                raise NotForwarded(f"{self.url.geturl()} leads to {place or 'another address'}; use the address there.")
            raise NotForwarded(answer.sentence())
        raise self._unreached("it does not answer in time")

    async def open(self, task: str, port: int) -> PieceStream:
        """Raises NotForwarded, OSError, BrokenResourceError."""
        return await _opened(await self._connect(), self._target(task, port), self._headers)

    async def _connect(self) -> anyio.abc.ByteStream:
        """Raises NotForwarded."""
        host, tls = self.url.hostname or "", self._tls
        port = self.url.port or (80 if tls is None else 443)
        try:
            if tls is None:
                carrier: anyio.abc.ByteStream = await anyio.connect_tcp(host, port)
            else:
                # The pieces tell an end from a break, so that TLS need not.
                carrier = await anyio.connect_tcp(host, port, ssl_context=tls, tls_standard_compatible=False)
        except ssl.SSLCertVerificationError as error:
            raise self._unreached(f"its certificate does not count: {error.verify_message}") from None
        except _UNREACHED as error:
            why = getattr(error, "strerror", None) or getattr(error, "reason", None) or type(error).__name__
            raise self._unreached(str(why)) from None
        notice_a_vanished_peer(carrier.extra(SocketAttribute.raw_socket))  # noqa: S610
        return carrier

    def _unreached(self, why: str) -> NotForwarded:
        return NotForwarded(
            f"The server at {self.url.geturl()} is not reached ({why}); check the address, or try again."
        )


@dataclass(frozen=True)
class _Answer:
    """A server's answer. `body` of a connection that is open: its first bytes."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes

    @property
    def is_open(self) -> bool:
        return self.status == 101 and self.headers.get(b"upgrade", b"").lower() == FORWARD

    def sentence(self) -> str:
        try:
            return plain_line(str(json.loads(self.body)["error"]["message"])[:MESSAGE_SHOWN])
        except (ValueError, KeyError, TypeError):
            return f"The server answers {self.status} and not as taskcell does; its log may tell why."


async def _opened(carrier: anyio.abc.ByteStream, target: str, headers: Headers) -> PieceStream:
    """Ask a server for a port. Raises NotForwarded, OSError, BrokenResourceError, with the carrier closed."""
    try:
        answer = await _asked(carrier, target, [*headers, *_UPGRADE])
        if not answer.is_open:
            raise NotForwarded(answer.sentence())
    except BaseException:
        with anyio.CancelScope(shield=True):
            await carrier.aclose()
        raise
    return PieceStream(carrier, answer.body)


async def _asked(carrier: anyio.abc.ByteStream, target: str, headers: Headers) -> _Answer:
    """Raises NotForwarded, OSError, BrokenResourceError."""
    http = h11.Connection(h11.CLIENT)
    request = http.send(h11.Request(method="GET", target=target, headers=list(headers))) or b""
    await carrier.send(request + (http.send(h11.EndOfMessage()) or b""))
    answer, body = _Answer(0, {}, b""), bytearray()
    while True:
        try:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(await _received(carrier))
        except h11.RemoteProtocolError:
            raise NotForwarded("What answers there does not speak HTTP/1.1; check the address.") from None
        if isinstance(event, h11.InformationalResponse) and event.status_code == 101:
            first, _ = http.trailing_data
            return _Answer(101, dict(event.headers), first)
        if isinstance(event, h11.Response):
            answer = _Answer(event.status_code, dict(event.headers), b"")
        elif isinstance(event, h11.Data) and len(body) < _MAX_ANSWER:
            body += event.data
        elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
            return _Answer(answer.status, answer.headers, bytes(body))


async def _received(carrier: anyio.abc.ByteStream) -> bytes:
    """What came; nothing at the end, which h11 judges. Raises OSError, BrokenResourceError."""
    try:
        return await carrier.receive()
    except anyio.EndOfStream:
        return b""
