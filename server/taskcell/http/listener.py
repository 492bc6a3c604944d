"""Listens on sockets by uvicorn, within bounds: connections, heads, and clients that send or read too slowly."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Generator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.h11_impl import H11Protocol

from taskcell.hop_by_hop import Headers
from taskcell.http.requests import MAX_HEAD
from taskcell.http.upgrade import UPGRADE, UpgradedConnection

#: Connections at once, and the answer to one more. Each takes a descriptor, of which a process often has 1,024.
MAX_CONNECTIONS = 512
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\ncontent-length: 21\r\nretry-after: 10\r\n"
    b"connection: close\r\n\r\nToo many connections\n"
)
#: Connections that the kernel keeps until they are accepted.
BACKLOG = 128
#: Seconds for a head to come whole, and for a client to take what was sent to it (64 KiB).
HEAD_TIMEOUT, READER_TIMEOUT = 10.0, 30.0
#: The key of a request's scope under which its route says how many seconds its reader may take instead.
READER_PATIENCE = "taskcell.reader_patience"
#: Seconds that a connection stays open between two requests.
KEEP_ALIVE = 30
#: Bytes of a body, said beforehand, from which on it goes past h11, which would copy each piece three times; and bytes
#: of it that may wait for the application.
LARGE_BODY, BODY_WAITING = 1 << 20, 1 << 19
#: Seconds for connections to close at the end, when every answer has been sent.
CONNECTIONS_TIMEOUT = 1


class _Connection(h11.Connection):
    """Remembers which status a faulty request deserves."""

    fault = 400

    def next_event(self) -> Any:
        try:
            return super().next_event()
        except h11.RemoteProtocolError as error:
            self.fault = error.error_status_hint
            raise


class BoundedProtocol(H11Protocol):
    """One connection. It is closed when nothing is served on it and no whole head comes, or nobody reads its answer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.conn = _Connection(h11.SERVER, MAX_HEAD)
        self._head: asyncio.TimerHandle | None = None
        self._reader: asyncio.TimerHandle | None = None
        #: Bytes of a large body that are still to come. Its connection serves no further request.
        self._body_left = 0
        self._served, self.app = self.app, self._serve

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.write(_FULL)
            transport.close()
        self._expect_head()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, which may change the connection's protocol."""
        scope["extensions"] = {UPGRADE: self._upgrade}
        await self._served(scope, receive, send)

    async def _upgrade(self, headers: Headers) -> UpgradedConnection:
        """Answer the request that is being served with 101, and hand its connection over. Raises OSError."""
        if self.transport.is_closing() or self.cycle.disconnected or self.cycle.response_started:
            raise ConnectionResetError
        response = h11.InformationalResponse(status_code=101, headers=list(headers), reason=b"Switching Protocols")
        self.transport.write(self.conn.send(response) or b"")
        first, _ = self.conn.trailing_data
        self.cycle.disconnected = True  # what the application may still answer is dropped
        return UpgradedConnection(self.transport, first, self.connection_lost, READER_TIMEOUT)

    def _unsupported_upgrade_warning(self) -> None:
        """An application decides, and not uvicorn."""

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._body_left:
            self._take_body(data)
            return
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._begin_body()
        self._expect_head()

    def _begin_body(self) -> None:
        """After a request's head: let a large body go past h11 from here on."""
        found = dict(self.headers or ())
        size = 0 if b"transfer-encoding" in found else int(found.get(b"content-length", 0))
        if size >= LARGE_BODY and self.conn.their_state is h11.SEND_BODY:
            self._body_left = size - len(self.cycle.body)
            self.cycle.keep_alive = False
            self.cycle.scope["headers"] = [*self.cycle.scope["headers"], CLOSE_HEADER]

    def _take_body(self, data: bytes) -> None:
        cycle, piece = self.cycle, data[: self._body_left]
        self._body_left -= len(piece)
        cycle.body = cycle.body + piece if cycle.body else piece  # type: ignore[assignment]  # it is only made bytes of
        cycle.more_body = self._body_left > 0
        if len(cycle.body) > BODY_WAITING:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._expect_head()

    def _expect_head(self) -> None:
        """Start or stop the clock: it runs while no request is being served and uvicorn's own (KEEP_ALIVE) does not."""
        serving = self.cycle is not None and not self.cycle.response_complete
        if serving or self.timeout_keep_alive_task is not None or self.transport.is_closing():
            self._head = _stopped(self._head)
        elif self._head is None:
            self._head = self.loop.call_later(HEAD_TIMEOUT, self._no_head)

    def _no_head(self) -> None:
        self._head = None
        if self.conn.our_state is h11.IDLE:
            self._refuse(408, "The request did not come in time.")
        else:
            self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._reader is None:
            own = None if self.cycle is None else self.cycle.scope.get(READER_PATIENCE)
            patience = own if isinstance(own, float) else READER_TIMEOUT
            self._reader = self.loop.call_later(patience, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._reader = _stopped(self._reader)

    def connection_lost(self, exc: Exception | None) -> None:
        self._head, self._reader = _stopped(self._head), _stopped(self._reader)
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        assert isinstance(self.conn, _Connection)
        sentence = "The request is not valid HTTP."
        if self.conn.fault == 431:
            sentence = f"The request's line and headers have more than {MAX_HEAD} bytes."
        self._refuse(self.conn.fault, sentence)

    def _refuse(self, status: int, sentence: str) -> None:
        """Answer, if an answer can still be sent, and close the connection."""
        body = f"{sentence}\n".encode("ascii")
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", str(len(body)).encode("ascii")),
            (b"connection", b"close"),
        ]
        phrase = HTTPStatus(status).phrase.encode("ascii")
        start = h11.Response(status_code=status, headers=headers, reason=phrase)
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE) and self._take_over():
            for event in (start, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _take_over(self) -> bool:
        """Whether nothing was answered on this connection yet; what an application may answer is dropped then."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return True
        if cycle.response_started:
            return False
        cycle.disconnected = True
        cycle.message_event.set()
        return True


def _stopped(clock: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """Stop a clock; return what takes its place: none."""
    if clock is not None:
        clock.cancel()
    return None


class HttpListener(uvicorn.Server):
    """Serves an application on one socket until `stop`. It leaves signals alone.

    Arguments:
        tls: with the server's certificate; None serves without TLS.
    """

    def __init__(self, app: ASGIApp, tls: ssl.SSLContext | None = None) -> None:
        config = uvicorn.Config(
            app,
            http=BoundedProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=CONNECTIONS_TIMEOUT,
            ssl_context_factory=None if tls is None else lambda config, default: tls,
        )
        super().__init__(config)

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    def stop(self) -> None:
        """Close the socket and the connections; those that are being served get CONNECTIONS_TIMEOUT."""
        self.should_exit = True

    def close(self) -> None:
        """Close the sockets and the idle connections at once; the others close after their answers."""
        self.stop()
        for server in getattr(self, "servers", ()):
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()


def listen(host: str, port: int) -> socket.socket:
    """Open a listening TCP socket. Raises OSError."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except BaseException:
        listening.close()
        raise
    return listening
