"""An HTTP/1.1 proxy (RFC 9110, 9112): CONNECT, and requests for `http://` that are passed on one by one.

Each request is judged for itself and gets a connection of its own, so no second request rides on the first one's.
"""

from __future__ import annotations

import anyio
import anyio.abc
import h11

from taskcell.addresses import split_host
from taskcell.destinations import Destination
from taskcell.egress.gate import REQUEST_TIMEOUT, Gate
from taskcell.egress.relay import BROKEN, IDLE_TIMEOUT, RELAY_PIECE, Traffic, relay
from taskcell.egress.rules import NotConnected, Why
from taskcell.hop_by_hop import framing_of, passed_on
from taskcell.supervisor.tunnels import Tunnel

#: Bytes of a request's or an answer's head: twice what common servers take.
MAX_HEAD = 32 << 10
#: Seconds that a program may keep its connection to the proxy open without a request.
NEXT_REQUEST_TIMEOUT = 60.0
_STATUS = {
    Why.DENIED: 403,
    Why.ADDRESS: 403,
    Why.MALFORMED: 400,
    Why.UNKNOWN_NAME: 502,
    Why.UNREACHABLE: 502,
    Why.TIMEOUT: 504,
    Why.BOUND: 429,
    Why.ASKED: 403,
}
#: What an exchange with a server ends with when it breaks off.
_FAILED = (*BROKEN, h11.ProtocolError)
_HTTP = b"http://"
_HTTP_PORT = 80


class HttpProxy:
    """Serves the requests of one connection.

    Arguments:
        first: bytes that were read already.
    """

    def __init__(self, tunnel: Tunnel, gate: Gate, first: bytes) -> None:
        self._tunnel = tunnel
        self._gate = gate
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._http.receive_data(first)

    async def serve(self) -> None:
        """Serve until the program is done, or something is wrong. Raises TimeoutError: no request came in time."""
        wait = REQUEST_TIMEOUT
        while True:
            try:
                with anyio.fail_after(wait):
                    event = await self._next(self._http, self._tunnel)
                if not isinstance(event, h11.Request):
                    return
                if event.method == b"CONNECT":
                    await self._connect(event)
                    return
                if not await self._forward(event):
                    return
                self._http.start_next_cycle()
            except h11.RemoteProtocolError as error:
                await self._answer(Why.MALFORMED, f"The request cannot be read: {error}.")
                return
            except ValueError as error:
                self._gate.refuse(NotConnected(Why.MALFORMED, str(error)), "http")
                await self._answer(Why.MALFORMED, str(error))
                return
            except NotConnected as failure:
                await self._answer(failure.why, str(failure))
                return
            wait = NEXT_REQUEST_TIMEOUT

    @staticmethod
    async def _next(http: h11.Connection, stream: anyio.abc.ByteStream) -> h11.Event | type[h11.PAUSED]:
        while True:
            event = http.next_event()
            if event is not h11.NEED_DATA:
                return event  # type: ignore[return-value]
            try:
                data = await stream.receive(RELAY_PIECE)
            except anyio.EndOfStream:
                data = b""
            http.receive_data(data)

    async def _send(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if data:
            await self._tunnel.send(data)

    async def _answer(self, why: Why, sentence: str) -> None:
        """Answer in the proxy's own name.

        Raises BrokenResourceError when an answer has begun, which must not look whole.
        """
        if self._http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            raise anyio.BrokenResourceError
        body = f"taskcell: {sentence}\n".encode("utf-8", "replace")
        headers = [("Content-Type", "text/plain; charset=utf-8"), ("Connection", "close")]
        if why is Why.BOUND:
            headers.append(("Retry-After", "10"))
        headers.append(("Content-Length", str(len(body))))
        await self._send(h11.Response(status_code=_STATUS[why], headers=headers, reason=b"Refused by taskcell"))
        await self._send(h11.Data(data=body))
        await self._send(h11.EndOfMessage())

    # --- CONNECT -------------------------------------------------------------------------------------------------

    async def _connect(self, request: h11.Request) -> None:
        if any(name in (b"content-length", b"transfer-encoding") for name, _ in request.headers):
            raise ValueError("A CONNECT request has no body.")
        host, port = split_host(request.target.decode("ascii", "replace"))
        to = Destination.read(host, port)
        self._http.next_event()  # the end of the request, after which h11 can change its protocol
        async with self._gate.connection(to, "connect") as (upstream, traffic):
            await self._send(h11.Response(status_code=200, headers=[], reason=b"Connection established"))
            early, _ = self._http.trailing_data
            if early:
                traffic.count_sent(len(early))
                await upstream.send(early)
            await relay(self._tunnel, upstream, self._gate.account(), traffic)

    # --- http:// -------------------------------------------------------------------------------------------------

    async def _forward(self, request: h11.Request) -> bool:
        """Pass one request and its answer on; return whether the connection can take another one."""
        to, authority, target = _read_target(request.target)
        exchange = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        head = h11.Request(
            method=request.method,
            target=target,
            headers=[
                (b"Host", authority),
                *passed_on(request.headers),
                *framing_of(request.headers),
                (b"Connection", b"close"),
            ],
        )
        async with self._gate.connection(to, "http") as (upstream, traffic):
            try:
                await upstream.send(exchange.send(head) or b"")
                await self._exchange(exchange, upstream, traffic, is_head=request.method == b"HEAD")
            except _FAILED as error:
                raise NotConnected(Why.UNREACHABLE, f"{to} broke off: {error}.", to) from None
        return self._http.our_state is h11.DONE and self._http.their_state is h11.DONE

    async def _exchange(
        self, exchange: h11.Connection, upstream: anyio.abc.ByteStream, traffic: Traffic, *, is_head: bool
    ) -> None:
        """Pass the request's body on while its answer comes, which may be before the body's end. Raises `_FAILED`."""
        failure: Exception | None = None
        with anyio.move_on_after(IDLE_TIMEOUT) as idle:
            async with anyio.create_task_group() as group:
                group.start_soon(self._upload, exchange, upstream, traffic, idle)
                try:
                    await self._download(exchange, upstream, traffic, idle, is_head=is_head)
                except _FAILED as error:
                    failure = error
                group.cancel_scope.cancel()
        if failure is None and idle.cancelled_caught:
            failure = anyio.BrokenResourceError("nothing came for too long")
        if failure is not None:
            raise failure

    async def _upload(
        self, exchange: h11.Connection, upstream: anyio.abc.ByteStream, traffic: Traffic, idle: anyio.CancelScope
    ) -> None:
        """Pass the body on. A program that breaks off ends the exchange; a server that reads no more may answer."""
        try:
            if self._http.they_are_waiting_for_100_continue:
                await self._send(h11.InformationalResponse(status_code=100, headers=[]))
            while isinstance(event := await self._next(self._http, self._tunnel), h11.Data):
                idle.deadline = anyio.current_time() + IDLE_TIMEOUT
                traffic.count_sent(len(event.data))
                await self._gate.account().spend(len(event.data))
                await upstream.send(exchange.send(h11.Data(data=event.data)) or b"")
            await upstream.send(exchange.send(h11.EndOfMessage()) or b"")
        except h11.ProtocolError:
            idle.cancel()
        except BROKEN:
            if self._tunnel.broken is not None:
                idle.cancel()

    async def _download(
        self,
        exchange: h11.Connection,
        upstream: anyio.abc.ByteStream,
        traffic: Traffic,
        idle: anyio.CancelScope,
        *,
        is_head: bool,
    ) -> None:
        while True:
            event = await self._next(exchange, upstream)
            idle.deadline = anyio.current_time() + IDLE_TIMEOUT
            if isinstance(event, h11.Response):
                await self._send(_answered(event, is_head=is_head))
            elif isinstance(event, h11.Data):
                traffic.count_received(len(event.data))
                if not await self._gate.account().spend(len(event.data)):
                    raise anyio.BrokenResourceError("the task has used up its bytes")
                await self._send(h11.Data(data=event.data))
            elif isinstance(event, h11.EndOfMessage):
                await self._send(h11.EndOfMessage())
                return
            elif not isinstance(event, h11.InformationalResponse):
                raise anyio.BrokenResourceError("it ended without an answer")


def _read_target(target: bytes) -> tuple[Destination, bytes, bytes]:
    """Return where a request goes, the Host that it names there, and what it asks for there. Raises ValueError."""
    if target[: len(_HTTP)].lower() != _HTTP:
        raise ValueError("This is a proxy: it takes requests for http://…, and CONNECT for everything else.")
    rest = target[len(_HTTP) :].decode("ascii", "replace")
    end = next((at for at, character in enumerate(rest) if character in "/?#"), len(rest))
    authority, path = rest[:end], rest[end:]
    if "#" in path:
        raise ValueError("The address of a request has no fragment.")
    host, port = split_host(authority)
    to = Destination.read(host, port or _HTTP_PORT)
    named = str(to) if port else str(to).removesuffix(f":{_HTTP_PORT}")
    return to, named.encode("ascii"), (path if path.startswith("/") else f"/{path}").encode("ascii")


def _answered(response: h11.Response, *, is_head: bool) -> h11.Response:
    framing = framing_of(response.headers)
    if not is_head and framing[:1] == [(b"Transfer-Encoding", b"chunked")]:
        framing = []  # h11 chunks it anew, or ends it with the connection for a program that knows no chunks
    return h11.Response(
        status_code=response.status_code, headers=[*passed_on(response.headers), *framing], reason=response.reason
    )
