"""A stand-in on loopback for the API of Claude Code's model, which calls the tools that a test names and keeps what it
is shown of each answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from time import sleep
from types import TracebackType
from typing import Any, Self

#: What the ids of the calls that a test wants begin with.
_OURS = "call_"
#: A tool of the client itself, which shows the list of its talk's tasks, and seconds before it is called.
_HARMLESS, _TURN = "TaskList", 0.5
_DONE = {"type": "text", "text": "done"}
#: A call: the tool's name as the client gives it to its model, and the arguments.
Call = tuple[str, dict[str, Any]]


class MessagesApi:
    """Answers each request with the next call that is not answered in it, and at last with a text. Use with `with`.

    Arguments:
        calls: in order; each waits for the answer of the one before it.
    """

    def __init__(self, calls: Sequence[Call]) -> None:
        self.calls = calls
        self.seen: list[dict[str, Any]] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                api.answer(self, body)

            def do_GET(self) -> None:
                self.send_error(404)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        """Answer one request of the client."""
        if not request.path.startswith("/v1/messages") or "count_tokens" in request.path:
            request.send_error(404)
            return
        _send(request, body, self._next(body))

    def _next(self, body: dict[str, Any]) -> dict[str, Any]:
        names = {tool["name"] for tool in body.get("tools", ())}
        # Beside those of the talk, the client sends requests of its own, such as for a title: they have no tools.
        if not names:
            return _DONE
        if self.calls[0][0] not in names:
            # It begins without the tools of a server that takes long to start, and has them in a later request.
            sleep(_TURN)
            return {"type": "tool_use", "id": f"wait_{len(body['messages'])}", "name": _HARMLESS, "input": {}}
        results = list(_results(body["messages"]))
        self.seen = results if len(results) > len(self.seen) else self.seen
        if len(results) == len(self.calls):
            return _DONE
        name, arguments = self.calls[len(results)]
        return {"type": "tool_use", "id": f"{_OURS}{len(results)}", "name": name, "input": arguments}


def _results(messages: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for message in messages:
        if message["role"] == "user" and isinstance(message["content"], list):
            parts = (part for part in message["content"] if part["type"] == "tool_result")
            yield from (part for part in parts if part["tool_use_id"].startswith(_OURS))


def _send(request: BaseHTTPRequestHandler, body: dict[str, Any], content: dict[str, Any]) -> None:
    is_call = content["type"] == "tool_use"
    message = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": body["model"], "content": [content],
        "stop_reason": "tool_use" if is_call else "end_turn", "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }  # fmt: skip
    data = "".join(_events(message, content)) if body.get("stream") else json.dumps(message)
    request.send_response(200)
    request.send_header("content-type", "text/event-stream" if body.get("stream") else "application/json")
    request.send_header("content-length", str(len(data)))
    request.end_headers()
    request.wfile.write(data.encode())


def _events(message: dict[str, Any], content: dict[str, Any]) -> Iterator[str]:
    is_call = content["type"] == "tool_use"
    start = {**content, "input": {}} if is_call else {**content, "text": ""}
    delta = (
        {"type": "input_json_delta", "partial_json": json.dumps(content["input"])}
        if is_call
        else {"type": "text_delta", "text": content["text"]}
    )
    stop = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    for event in (
        {"type": "message_start", "message": {**message, "content": [], "stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": start},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": stop, "usage": {"output_tokens": 1}},
        {"type": "message_stop"},
    ):
        yield f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"
