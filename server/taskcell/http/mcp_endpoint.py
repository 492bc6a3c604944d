"""The route `/mcp`: reads a body within bounds, refuses what the token does not allow, and hands the rest to MCP."""

from __future__ import annotations

from collections import Counter
from typing import Any

import anyio
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from taskcell.caller import USUAL_SCOPES, Caller
from taskcell.http.message import NotAMessage, message_of
from taskcell.http.refuse import refusal
from taskcell.http.sign_in import SignIn
from taskcell.mcp.principal import STATE, missing
from taskcell.mcp.server import TaskcellServer
from taskcell.model import MIB

#: Seconds for the next piece of a body, and for a whole one: 16 MiB at 140 kB/s.
PIECE_TIMEOUT, BODY_TIMEOUT = 20.0, 120.0
#: Bytes of bodies that are half read, overall and of one principal: they are in memory, and no bound of calls counts
#: them yet. Four calls of the largest usual size come at once; where `max_body` is larger, one does.
MAX_HALF_READ, MAX_HALF_READ_PER_PRINCIPAL = 256 * MIB, 64 * MIB
#: Seconds after which a client may send its body again when others take all the room.
BODY_RETRY_AFTER = 2


class TooSlow(Exception):
    """The body does not come in time."""


class TooLarge(Exception):
    """The body has more bytes than are allowed."""


class BodiesFull(Exception):
    """Bodies that are half read take all the room that there is for them."""


class HalfRead:
    """Counts the bytes of bodies that have not come whole yet, by principal.

    Arguments:
        max_body: bytes of one.
    """

    def __init__(self, max_body: int) -> None:
        self._overall, self._own = max(MAX_HALF_READ, max_body), max(MAX_HALF_READ_PER_PRINCIPAL, max_body)
        self._held: Counter[str] = Counter()

    def add(self, principal: str, size: int) -> None:
        """Raises BodiesFull."""
        if self._held[principal] + size > self._own or self._held.total() + size > self._overall:
            raise BodiesFull
        self._held[principal] += size

    def remove(self, principal: str, size: int) -> None:
        self._held[principal] -= size
        if not self._held[principal]:
            del self._held[principal]


class McpEndpoint:
    """Serves `/mcp` for a caller that is signed in.

    Arguments:
        app: the SDK's.
        max_body: bytes of one request.
    """

    def __init__(self, app: ASGIApp, server: TaskcellServer, *, max_body: int) -> None:
        self._app = app
        self._server = server
        self._max_body = max_body
        self._half_read = HalfRead(max_body)
        self.sign_in: SignIn | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller: Caller = scope["state"][STATE]
        if not caller.scopes:
            await self._forbidden(scope, missing(USUAL_SCOPES), USUAL_SCOPES)(scope, receive, send)
            return
        if scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        close = {"connection": "close"}
        try:
            body = await self._read(caller.principal, scope, receive)
        except TooLarge:
            sentence = f"The request has more than {self._max_body} bytes, which http.max_body allows; send less."
            await refusal(413, sentence, close)(scope, receive, send)
        except TooSlow:
            await refusal(408, "The request did not come in time; send it again.", close)(scope, receive, send)
        except BodiesFull:
            sentence = (
                f"Other requests take all the room for bodies; send this one again in {BODY_RETRY_AFTER} seconds."
            )
            await refusal(503, sentence, close | {"retry-after": str(BODY_RETRY_AFTER)})(scope, receive, send)
        except ClientDisconnect:
            return
        else:
            await self._pass_on(body, scope, receive, send)

    async def _pass_on(self, body: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a body to MCP if it is a message that the caller may send."""
        caller: Caller = scope["state"][STATE]
        try:
            scopes = self._needed(message_of(body))
        except NotAMessage as fault:
            await refusal(400, fault.sentence, code=fault.code)(scope, receive, send)
            return
        if scopes and not caller.may(scopes):
            await self._forbidden(scope, missing(scopes), scopes)(scope, receive, send)
        else:
            await self._app(scope, Replayed(body, receive), send)

    async def _read(self, principal: str, scope: Scope, receive: Receive) -> bytes:
        """Return a request's body. Raises TooLarge, TooSlow, BodiesFull, ClientDisconnect."""
        held = 0

        async def counted() -> Message:
            nonlocal held
            message = await receive()
            size = len(message.get("body", b""))
            self._half_read.add(principal, size)
            held += size
            return message

        try:
            return await read_body(scope, counted, self._max_body)
        finally:
            self._half_read.remove(principal, held)

    def _needed(self, message: dict[str, Any]) -> frozenset[Any]:
        """The scopes of which this request needs one. MCP's handlers check again what they make of it."""
        name = (message.get("params") or {}).get("name")
        if message.get("method") == "tools/call" and isinstance(name, str):
            return self._server.tools.scopes(name)
        return frozenset()

    def _forbidden(self, scope: Scope, sentence: str, scopes: frozenset[Any]) -> Response:
        assert self.sign_in is not None
        return self.sign_in.insufficient(scope, sentence, scopes)


class Replayed:
    """Receives a body that was read already, and then what comes after it."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """Return a request's body. Raises TooLarge, TooSlow, ClientDisconnect."""
    declared = Headers(scope=scope).get("content-length", "0")
    if declared.isdigit() and int(declared) > limit:
        raise TooLarge
    body, deadline = bytearray(), anyio.current_time() + BODY_TIMEOUT
    while True:
        with anyio.move_on_after(min(PIECE_TIMEOUT, deadline - anyio.current_time())) as bound:
            message = await receive()
        if bound.cancelled_caught:
            raise TooSlow
        if message["type"] != "http.request":
            raise ClientDisconnect
        body += message.get("body", b"")
        if len(body) > limit:
            raise TooLarge
        if not message.get("more_body", False):
            return bytes(body)
