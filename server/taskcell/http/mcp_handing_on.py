"""Hands requests at `/mcp` on to the server that has what they are about.

A session lives in one server, whose name its id ends with. A request without a session that names a task, by its id in
the tasks extension, goes to the server that has it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from taskcell.caller import Caller
from taskcell.config.http_table import HttpSettings
from taskcell.deployment.base import Peer
from taskcell.errors import TaskcellError
from taskcell.gateway.gateway import Gateway
from taskcell.http.handing_on import HANDED_ON, HandingOn
from taskcell.http.mcp_endpoint import Replayed, read_body
from taskcell.http.message import NotAMessage, message_of
from taskcell.http.refuse import refusal
from taskcell.mcp.principal import STATE
from taskcell.mcp.tasks import task_of
from taskcell.model import TaskKey

SESSION = "mcp-session-id"
#: What stands between a session's own id and its server's name, in neither of which it is.
_DOT = "."
#: Methods that may be about tasks which others have, as clients say in a header; calls, reads and
#: subscriptions are handed on by MCP.
_METHOD = "mcp-method"
_BY_ID = frozenset(("tasks/get", "tasks/update", "tasks/cancel"))


class McpHandingOn:
    """Serves `/mcp` as far as it is this server's.

    Arguments:
        app: the SDK's, for callers that are signed in and bodies within bounds.
        settings: without `peer_url` everything is this server's.
    """

    def __init__(self, app: ASGIApp, gateway: Gateway, settings: HttpSettings) -> None:
        self._app = app
        self._gateway = gateway
        self._to_peers = HandingOn(app, gateway)
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._settings.peer_url:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            if SESSION in headers:
                peer, is_certain = await self._of_session(scope, headers), True
            else:
                peer, is_certain, receive = await self._of_tasks(scope, receive, headers.get(_METHOD, ""))
        except TaskcellError as error:
            await refusal(503, str(error), {"retry-after": "1"})(scope, receive, send)
            return
        if peer is None:
            await self._app(scope, receive, self._naming(send))
        else:
            caller: Caller = scope["state"][STATE]
            await self._to_peers.hand_on(caller, peer, scope, receive, send, is_certain=is_certain)

    def _naming(self, send: Send) -> Send:
        """Say which server a session is in that is begun."""
        instance = self._gateway.pool.deployment.instance

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start" and instance:
                headers = MutableHeaders(raw=(raw := list(message.get("headers", ()))))
                if SESSION in headers:
                    headers[SESSION] += _DOT + instance
                message = {**message, "headers": raw}
            await send(message)

        return named

    async def _of_session(self, scope: Scope, headers: Headers) -> Peer | None:
        """The server that a session is in. Raises TaskcellError.

        One that does not live has left none: a client that is told so begins anew.
        """
        session, _, instance = headers[SESSION].rpartition(_DOT)
        deployment, was_sent = self._gateway.pool.deployment, HANDED_ON.decode() in headers
        is_others = session and instance != deployment.instance and not was_sent
        if is_others and (peer := await deployment.peer(instance)) is not None:
            return peer
        scope["headers"] = [
            (name, session.encode("latin-1") if name == SESSION.encode() and session else value)
            for name, value in scope["headers"]
        ]
        return None

    async def _of_tasks(self, scope: Scope, receive: Receive, method: str) -> tuple[Peer | None, bool, Receive]:
        """The server that has the task which a request names, whether it surely does, and the body.

        Raises TaskcellError.
        """
        if scope["method"] != "POST" or method not in _BY_ID:
            return None, False, receive
        body = await read_body(scope, receive, self._settings.max_body)
        caller: Caller = scope["state"][STATE]
        with suppress(NotAMessage, ValueError):  # what is wrong with it, MCP says
            found = await self._to_peers.holder(_named(message_of(body), caller.principal), caller, scope)
            if isinstance(found.door, Peer):
                return found.door, found.is_certain, Replayed(body, receive)
        return None, False, Replayed(body, receive)


def _named(message: dict[str, Any], principal: str) -> TaskKey:
    """The task that a message names. Raises ValueError."""
    params = message.get("params")
    if not isinstance(params, dict) or message.get("method") not in _BY_ID:
        raise ValueError("it names none")
    return TaskKey(principal, task_of(str(params.get("taskId"))))
