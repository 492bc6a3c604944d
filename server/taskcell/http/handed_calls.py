"""The route by which a server of the deployment says what becomes of a call that it has handed on to this one."""

from __future__ import annotations

import json

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from taskcell.caller import Caller
from taskcell.http.mcp_endpoint import TooLarge, TooSlow, read_body
from taskcell.http.refuse import refusal
from taskcell.mcp.handed import Handed
from taskcell.mcp.passed_on import ANSWER_NOW, CANCEL
from taskcell.mcp.principal import STATE

#: Bytes of a body: a name and a word.
_MAX_BODY = 4 << 10


class HandedCalls:
    """Serves the route for callers that are signed in. GET says only that this is the server that was meant."""

    def __init__(self, handed: Handed) -> None:
        self._handed = handed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller: Caller = scope["state"][STATE]
        answer = Response(status_code=204, headers={"connection": "close"})
        if scope["method"] == "POST":
            try:
                words = json.loads(await read_body(scope, receive, _MAX_BODY))
                is_known = words["then"] in (ANSWER_NOW, CANCEL) and isinstance(words["call"], str)
            except (ValueError, TypeError, KeyError, RecursionError, TooLarge, TooSlow):
                is_known = False
            except ClientDisconnect:
                return
            if not is_known:
                answer = refusal(400, "The body is to be {call, then}, as servers of one deployment send it.")
            elif not self._handed.say(words["call"], caller.principal, words["then"]):
                answer = refusal(404, "There is no such call.")
        await answer(scope, receive, send)
