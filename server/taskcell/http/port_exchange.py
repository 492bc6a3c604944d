"""One request at `/ports/`, and its answer: streamed both ways, or the connection that they become."""

from __future__ import annotations

from contextlib import suppress
from typing import Protocol

import anyio
import anyio.abc
import h11
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from taskcell.byte_streams import BROKEN, SPLICE_PIECE, splice
from taskcell.gateway.ports import PortTraffic
from taskcell.hop_by_hop import Headers
from taskcell.http.files import body_pieces
from taskcell.http.mcp_endpoint import TooSlow
from taskcell.http.refuse import error_answer
from taskcell.http.upgrade import UPGRADE, Upgrade, wanted_protocol

#: Bytes of an answer's head: twice what common servers take.
MAX_ANSWER_HEAD = 32 << 10
#: Seconds without a byte either way after which a connection is given up: a quarter of an hour, as for connections out
#: of a sandbox. What is to stand longer sends something.
PORT_IDLE_TIMEOUT = 900.0
#: Seconds for a server to close its end after its answer: it is asked to do so at once.
CLOSE_PATIENCE = 1.0
_SWITCHING = 101


class Addressed(Protocol):
    """Where a request goes, and which headers pass there and back."""

    @property
    def who(self) -> str: ...

    @property
    def target(self) -> bytes: ...

    def to_server(self, headers: Headers, upgrade: bytes | None) -> list[tuple[bytes, bytes]]: ...

    def to_client(self, headers: Headers, upgrade: bytes | None = None) -> list[tuple[bytes, bytes]]: ...


class PortExchange:
    """Passes one request on to a sandbox's server, or to another one of the deployment, and its answer back.

    Arguments:
        tunnel: a connection that stands, and is used for this request alone.
        idle: seconds without a byte either way after which the connection is given up; None: PORT_IDLE_TIMEOUT.
    """

    def __init__(
        self,
        tunnel: anyio.abc.ByteStream,
        traffic: PortTraffic,
        address: Addressed,
        scope: Scope,
        *,
        idle: float | None = None,
    ) -> None:
        self._tunnel, self._traffic = tunnel, traffic
        self._idle = PORT_IDLE_TIMEOUT if idle is None else idle
        self._address = address
        self._scope = scope
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_ANSWER_HEAD)
        self._wanted = wanted_protocol(scope)
        self._has_begun = False

    async def serve(self, receive: Receive, send: Send) -> Response | None:
        """Carry the request and its answer; return the answer that is still to be sent, if the server gave none.

        An answer that breaks off is left without its end, so that the client notices.
        """
        failure: Response | None = None
        with anyio.move_on_after(self._idle) as idle:
            async with anyio.create_task_group() as group:

                async def upload() -> None:
                    nonlocal failure
                    try:
                        await self._upload(receive, idle)
                    except ClientDisconnect:
                        group.cancel_scope.cancel()
                    except TooSlow:
                        failure = error_answer(408, "The body did not come in time; send it again.")
                        group.cancel_scope.cancel()

                try:
                    await self._send(self._request())
                    group.start_soon(upload)
                    await self._download(send, idle)
                except BROKEN:
                    failure = self._broken("closed the connection without an answer")
                except h11.ProtocolError:
                    failure = self._broken("did not answer with HTTP")
                group.cancel_scope.cancel()
        if idle.cancelled_caught:
            failure = error_answer(504, f"{self._address.who} did not answer in time.")
        return None if self._has_begun else failure

    def _broken(self, what: str) -> Response:
        return error_answer(502, f"{self._address.who} {what}.")

    def _request(self) -> h11.Request:
        return h11.Request(
            method=self._scope["method"],
            target=self._address.target,
            headers=self._address.to_server(self._scope["headers"], self._wanted),
        )

    async def _send(self, event: h11.Event) -> None:
        data = self._http.send(event) or b""
        if data:
            self._traffic.count_sent(len(data))
            await self._tunnel.send(data)

    async def _upload(self, receive: Receive, idle: anyio.CancelScope) -> None:
        """Pass the body on, and notice when the client goes. Raises ClientDisconnect, TooSlow."""
        try:
            async for piece in body_pieces(receive):
                idle.deadline = anyio.current_time() + self._idle
                if piece:
                    await self._send(h11.Data(data=piece))
            await self._send(h11.EndOfMessage())
        except (*BROKEN, h11.LocalProtocolError):
            pass  # a server that reads no more may answer all the same
        while (await receive())["type"] != "http.disconnect":
            pass
        raise ClientDisconnect

    async def _download(self, send: Send, idle: anyio.CancelScope) -> None:
        """Pass the answer on. Raises `BROKEN`, ProtocolError."""
        while True:
            event = await self._next()
            idle.deadline = anyio.current_time() + self._idle
            if isinstance(event, h11.InformationalResponse):
                if event.status_code == _SWITCHING and self._wanted is not None:
                    await self._switch(event, idle)
                    return
            elif isinstance(event, h11.Response):
                self._has_begun = True
                headers = self._address.to_client(event.headers)
                await send({"type": "http.response.start", "status": event.status_code, "headers": headers})
            elif isinstance(event, h11.Data):
                await send({"type": "http.response.body", "body": bytes(event.data), "more_body": True})
            elif isinstance(event, h11.EndOfMessage):
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                await self._linger()
                return
            else:
                raise anyio.BrokenResourceError

    async def _linger(self) -> None:
        """End the connection as clients do, and not by a reset, which servers log as an error."""
        with anyio.move_on_after(CLOSE_PATIENCE), suppress(anyio.EndOfStream, *BROKEN):
            await self._tunnel.send_eof()
            while True:
                await self._tunnel.receive()

    async def _next(self) -> object:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event
            try:
                data = await self._tunnel.receive(SPLICE_PIECE)
            except anyio.EndOfStream:
                data = b""
            self._traffic.count_received(len(data))
            self._http.receive_data(data)

    async def _switch(self, answer: h11.InformationalResponse, idle: anyio.CancelScope) -> None:
        """Let client and server speak another protocol, until both have ended. Raises `BROKEN`."""
        idle.deadline = float("inf")
        upgrade: Upgrade = self._scope["extensions"][UPGRADE]
        early, _ = self._http.trailing_data
        client = await upgrade(self._address.to_client(answer.headers, self._wanted))
        self._has_begun = True
        try:
            if early:
                await client.send(early)
            await splice(
                client,
                self._tunnel,
                idle=self._idle,
                from_one=self._traffic.count_sent,
                from_other=self._traffic.count_received,
            )
        finally:
            await client.aclose()
