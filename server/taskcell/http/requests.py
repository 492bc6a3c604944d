"""The requests that are being served, so that the server's end can wait for them, and end what goes on without one."""

from __future__ import annotations

import math

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from taskcell.http.refuse import refusal
from taskcell.mcp.passed_on import SERVER_CLOSES

#: Seconds after which a client may try a closing server again: a restart takes about that long.
RETRY_AFTER = 10
#: What a cluster asks of each server as long as it is there, and not because a Service sends requests to it.
PROBES = frozenset(("/healthz", "/readyz"))
#: The media type of streams of events.
EVENTS = b"text/event-stream"
#: Bytes of a request's line and headers together; a token takes up to 12,000 of them.
MAX_HEAD = 32 << 10
#: A proxy before the server may go by one of them and the server by the other (RFC 9112, 6.1).
_TWO_LENGTHS = {b"content-length", b"transfer-encoding"}


class Requests:
    """Serves requests by an application, and knows which are being served."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        #: Each with its method: GET opens streams that nobody waits for.
        self._scopes: dict[anyio.CancelScope, str] = {}
        self._closing = self._leaving = False
        #: When (the event loop's time) the last one came, but for PROBES.
        self.came = -math.inf
        self._change = anyio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError(f"the server speaks no {scope['type']}")
        if scope["path"] not in PROBES:
            self.came = anyio.current_time()
        if self._closing:
            headers = {"retry-after": str(RETRY_AFTER), "connection": "close"}
            sentence = "The server is closing; try again soon."
            await refusal(503, sentence, headers, code=SERVER_CLOSES)(scope, receive, send)
            return
        if _head_size(scope) > MAX_HEAD:
            sentence = f"The request's line and headers have more than {MAX_HEAD} bytes."
            await refusal(431, sentence, {"connection": "close"})(scope, receive, send)
            return
        if scope["http_version"] not in ("1.0", "1.1"):
            await refusal(505, "The server speaks HTTP/1.1.", {"connection": "close"})(scope, receive, send)
            return
        if {name for name, _ in scope["headers"]} >= _TWO_LENGTHS:
            sentence = "The body's length is given in two ways; send Content-Length or Transfer-Encoding, not both."
            await refusal(400, sentence, {"connection": "close"})(scope, receive, send)
            return
        answer = SentAnswer(self._last(send) if self._leaving else send)
        with anyio.CancelScope() as served:
            self._scopes[served] = scope["method"]
            try:
                await self._app(scope, receive, answer.send)
            finally:
                del self._scopes[served]
                change, self._change = self._change, anyio.Event()
                change.set()
        if served.cancelled_caught:
            await answer.finish()

    def leave(self) -> None:
        """Serve on, and have each client take another connection for its next request."""
        self._leaving = True

    def _last(self, send: Send) -> Send:
        async def closing(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [(name, value) for name, value in message.get("headers", ()) if name.lower() != b"connection"]
                message = {**message, "headers": [*headers, (b"connection", b"close")]}
            await send(message)

        return closing

    def close(self) -> None:
        """Refuse requests from now on."""
        self._closing = True

    async def answered(self) -> None:
        """Wait until no request is being served but streams that only end with the server."""
        while any(method != "GET" for method in self._scopes.values()):
            await self._change.wait()

    def cancel(self) -> None:
        """End the requests that are being served: streams that go on until somebody ends them."""
        for scope in self._scopes:
            scope.cancel()


def _head_size(scope: Scope) -> int:
    headers = sum(len(name) + len(value) + 4 for name, value in scope["headers"])
    return len(scope["raw_path"]) + len(scope["query_string"]) + headers


class SentAnswer:
    """The answer to one request, as far as it was sent."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._started = self._ended = self._is_stream = False

    async def send(self, message: Message) -> None:
        """Send one part of the answer."""
        self._started = True
        if message["type"] == "http.response.start":
            kinds = (value for name, value in message.get("headers", ()) if name.lower() == b"content-type")
            self._is_stream = next(kinds, b"").startswith(EVENTS)
        self._ended = message["type"] == "http.response.body" and not message.get("more_body", False)
        await self._send(message)

    async def finish(self) -> None:
        """End the answer properly where it was cut, if it is a stream of events, whose last one came whole.

        Anything else would look whole and is not, as an archive: its connection ends without its end.
        """
        if not self._started:
            await self._send({"type": "http.response.start", "status": 503, "headers": [(b"connection", b"close")]})
            self._is_stream = True  # it has no body
        if self._is_stream and not self._ended:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
