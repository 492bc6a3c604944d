"""Hands a request about a task on to the server of the deployment that has the task, and its answer back."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

import anyio
from anyio.abc import ByteStream
from starlette.datastructures import Headers as RequestHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from taskcell.caller import Caller
from taskcell.deployment.base import Claimed, Peer
from taskcell.deployment.key import peer_token
from taskcell.errors import BadArgument, SandboxLost, TaskcellError, TaskMoved
from taskcell.gateway.gateway import Gateway
from taskcell.gateway.ports import PortTraffic
from taskcell.hop_by_hop import Headers, framing_of, passed_on
from taskcell.http.listener import READER_PATIENCE
from taskcell.http.mcp_endpoint import Replayed, TooLarge, TooSlow, read_body
from taskcell.http.port_exchange import PortExchange
from taskcell.http.refuse import error_answer, refused
from taskcell.http.wanted import MAX_JSON, OUTPUT_PATIENCE
from taskcell.mcp.neighbours import PEER_OPENS, PEER_PATIENCE, PEER_TURN
from taskcell.mcp.passed_on import until_dead
from taskcell.mcp.principal import STATE
from taskcell.model import DEFAULT_TASK, TaskKey, ToolCall
from taskcell.schema.properties import MAX_TASK_ID

#: The header that says of a request that it is handed on: by one that knows the task is there, or that asks who has it.
HANDED_ON = b"taskcell-handed-on"
IS_HERE, ASKS, _TOOLS = "here", "ask", "tools"
GONE = "Another server of this deployment has the task and cannot be reached; call again in some seconds."


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """Another server, as `PortExchange` sees the other end of a request.

    Arguments:
        target: path and query.
        token: stands for the caller there.
    """

    peer: Peer
    target: bytes
    token: str = field(repr=False)
    is_certain: bool

    @property
    def who(self) -> str:
        return "The server that has the task"

    def to_server(self, headers: Headers, upgrade: bytes | None) -> list[tuple[bytes, bytes]]:
        """The client's own credentials stay here, and so does what only its browser is to know of this server."""
        left_out = (b"authorization", b"origin", b"cookie", HANDED_ON)
        return [
            (b"host", urlsplit(self.peer.url).netloc.encode()),
            (b"authorization", f"Bearer {self.token}".encode()),
            (HANDED_ON, (IS_HERE if self.is_certain else ASKS).encode()),
            *(header for header in passed_on(headers) if header[0] not in left_out),
            *(framing_of(headers) if upgrade is None else ()),
            *([(b"connection", b"close")] if upgrade is None else _upgrading(upgrade)),
        ]

    def to_client(self, headers: Headers, upgrade: bytes | None = None) -> list[tuple[bytes, bytes]]:
        length = [(name, value) for name, value in framing_of(headers) if name != b"Transfer-Encoding"]
        return [*passed_on(headers), *(length if upgrade is None else _upgrading(upgrade))]


class HandingOn:
    """Serves requests about tasks that this server has, or that are about none, by an application.

    Arguments:
        app: is asked with callers that are signed in.
    """

    def __init__(self, app: ASGIApp, gateway: Gateway) -> None:
        self._app = app
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller: Caller = scope["state"][STATE]
        try:
            task, receive = await self._task_of(caller.principal, scope, receive)
            found = Claimed() if task is None else await self.holder(TaskKey(caller.principal, task), caller, scope)
        except TaskcellError as error:
            await refused(error)(scope, receive, send)
        except (TooLarge, TooSlow):
            await error_answer(413, f"The body has more than {MAX_JSON} bytes, or comes too slowly.")(
                scope, receive, send
            )
        except ClientDisconnect:
            return
        else:
            if isinstance(found.door, Peer):
                await self.hand_on(caller, found.door, scope, receive, send, is_certain=found.is_certain)
            else:
                await self._app(scope, receive, send)

    async def _task_of(self, principal: str, scope: Scope, receive: Receive) -> tuple[str | None, Receive]:
        """The task that a request is about, and where its body comes from now. Raises TooLarge, TooSlow."""
        parts = [unquote(part, "utf-8", "surrogateescape") for part in scope["raw_path"].decode("ascii").split("/")[1:]]
        if len(parts) < 2:
            return None, receive
        if parts[0] != _TOOLS:
            return parts[1] if 0 < len(parts[1]) <= MAX_TASK_ID else None, receive  # the route says what is wrong
        tool = self._gateway.tools.get(parts[1])
        if tool is None or "task_id" not in tool.input_schema["properties"] or scope["method"] != "POST":
            return None, receive
        body = await read_body(scope, receive, MAX_JSON)
        task: str | None = None
        with suppress(ValueError, TypeError, RecursionError, BadArgument):  # the route says what is wrong
            arguments = dict(json.loads(body or b"{}"))
            task = tool.check(ToolCall(principal, parts[1], arguments)).get("task_id", DEFAULT_TASK)
        return task, Replayed(body, receive)

    async def holder(self, task: TaskKey, caller: Caller, scope: Scope) -> Claimed:
        """Who has a task, once that can be connected to. Raises TaskcellError."""
        began, sent = anyio.current_time(), RequestHeaders(scope=scope).get(HANDED_ON.decode())
        while True:
            found = await self._gateway.pool.holder(task, is_sent=sent is not None)
            if found.door is not None and sent == IS_HERE:
                raise TaskMoved
            if not isinstance(found.door, Peer):
                return found
            if await found.door.opens(self._token(found.door, caller), PEER_OPENS):
                return found
            if anyio.current_time() - began > PEER_PATIENCE:
                raise SandboxLost(GONE)
            await anyio.sleep(PEER_TURN)

    async def hand_on(
        self, caller: Caller, peer: Peer, scope: Scope, receive: Receive, send: Send, *, is_certain: bool
    ) -> None:
        """Carry a caller's request to another server, and its answer back, for as long as that server lives."""
        scope[READER_PATIENCE] = OUTPUT_PATIENCE  # as that of the route there may be
        query = b"?" + scope["query_string"] if scope["query_string"] else b""
        address = PeerAddress(peer, scope["raw_path"] + query, self._token(peer, caller), is_certain)
        try:
            stream = await peer.connect(PEER_OPENS)
        except (OSError, TimeoutError):
            await error_answer(502, GONE)(scope, receive, send)
            return
        async with stream, anyio.create_task_group() as beside:
            beside.start_soon(self._until_dead, peer, stream)
            answer = await PortExchange(stream, PortTraffic(), address, scope, idle=math.inf).serve(receive, send)
            beside.cancel_scope.cancel()
        if answer is not None:
            await answer(scope, receive, send)

    async def _until_dead(self, peer: Peer, stream: ByteStream) -> None:
        """Break a connection off that would stand for ever: that to a node which is cut off does not end by itself."""
        await until_dead(self._gateway.pool.deployment, peer)
        await anyio.aclose_forcefully(stream)

    def _token(self, peer: Peer, caller: Caller) -> str:
        return peer_token(self._gateway.pool.deployment.key, peer.instance, caller)


def _upgrading(protocol: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"connection", b"upgrade"), (b"upgrade", protocol)]
