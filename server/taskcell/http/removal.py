"""The route `/remove` of the local door: the operator closes a task of any principal, as `taskcell rm` does.

On a cluster the server that has the task closes it, for the server at whose door the operator is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import httpx2
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from taskcell.caller import LOCAL_CALLER, Caller
from taskcell.caller import Scope as TokenScope
from taskcell.deployment.base import Peer
from taskcell.deployment.key import peer_token
from taskcell.errors import SandboxLost, TaskcellError, TaskMoved
from taskcell.gateway.gateway import Gateway
from taskcell.gateway.removal import remove_task
from taskcell.http.handing_on import ASKS, GONE, HANDED_ON, IS_HERE
from taskcell.http.refuse import refusal
from taskcell.mcp.principal import STATE
from taskcell.model import TaskKey

REMOVE = "/remove"
#: Bytes of a request: two names.
_MAX_BODY = 16 << 10
#: Seconds for another server to close a task: killing what runs in it takes a few.
PASS_ON_TIMEOUT = 20.0
#: Whose route this is among callers that sign in: what a server asks another one for is no user's.
ADMINS = frozenset({TokenScope.ADMIN})


class Removal:
    """Serves the route: all tasks at a door whose every caller is the operator, and a caller's own at any other."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            answer = await self._answer(Request(scope, receive), scope["state"].get(STATE, LOCAL_CALLER))
        except TaskcellError as error:
            answer = refusal(503, str(error))
        await answer(scope, receive, send)

    async def _answer(self, request: Request, caller: Caller) -> Response:
        if request.method != "POST":
            return refusal(405, "Only POST is served here.", {"allow": "POST"})
        values = _object(await _body(request))
        principal, task, purge = values.get("principal"), values.get("task"), values.get("purge", False)
        if not (isinstance(principal, str) and isinstance(task, str) and isinstance(purge, bool)):
            return refusal(400, 'The body must be {"principal": "…", "task": "…", "purge": false}.')
        is_operator, key = caller is LOCAL_CALLER, TaskKey(principal, task)
        if not (is_operator or caller.principal == principal):
            return refusal(403, "That is another principal's task.")
        found = await self._gateway.pool.holder(key, is_sent=not is_operator)
        if found.door is None or not self._gateway.pool.deployment.marks_owners:
            return JSONResponse({"closed": await remove_task(self._gateway, key, purge=purge)})
        if not isinstance(found.door, Peer) or request.headers.get(HANDED_ON.decode()) == IS_HERE:
            raise TaskMoved
        return await self._ask(found.door, found.is_certain, values, principal)

    async def _ask(self, peer: Peer, is_certain: bool, values: Mapping[str, Any], principal: str) -> Response:
        """Have the server close the task that has it, or that knows who has it. Raises SandboxLost."""
        token = peer_token(self._gateway.pool.deployment.key, peer.instance, Caller(principal, ADMINS))
        sent = {HANDED_ON.decode(): IS_HERE if is_certain else ASKS}
        try:
            async with peer.http(token, PASS_ON_TIMEOUT, connect=PASS_ON_TIMEOUT, **sent) as http:
                answer = await http.post(f"{peer.url}{REMOVE}", json=dict(values))
        except (OSError, httpx2.HTTPError):
            raise SandboxLost(GONE) from None
        return Response(answer.content, answer.status_code, media_type=answer.headers.get("content-type"))


async def _body(request: Request) -> bytes:
    """The body; nothing for one that is too long or broken off."""
    found = bytearray()
    try:
        async for piece in request.stream():
            found += piece
            if len(found) > _MAX_BODY:
                return b""
    except ClientDisconnect:
        return b""
    return bytes(found)


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        values = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}
