"""The route `/remove` of the local door: the operator closes a task of any principal, as `taskcell rm` does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from taskcell.errors import TaskcellError
from taskcell.gateway.gateway import Gateway
from taskcell.gateway.removal import remove_task
from taskcell.http.refuse import refusal
from taskcell.model import TaskKey

REMOVE = "/remove"
#: Bytes of a request: two names.
_MAX_BODY = 16 << 10


class Removal:
    """Serves the route. Only for a door whose every caller is the operator."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = await self._answer(Request(scope, receive))
        await answer(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        if request.method != "POST":
            return refusal(405, "Only POST is served here.", {"allow": "POST"})
        values = _object(await _body(request))
        principal, task, purge = values.get("principal"), values.get("task"), values.get("purge", False)
        if not (isinstance(principal, str) and isinstance(task, str) and isinstance(purge, bool)):
            return refusal(400, 'The body must be {"principal": "…", "task": "…", "purge": false}.')
        try:
            return JSONResponse({"closed": await remove_task(self._gateway, TaskKey(principal, task), purge=purge)})
        except TaskcellError as error:
            return refusal(503, str(error))


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
