"""The stdio wire without any I/O: bytes in, JSON-RPC messages out, and back.

One message is one line. Whatever else a client sends is answered with a JSON-RPC error, never with silence.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from mcp_types import (
    INTERNAL_ERROR,
    INVALID_REQUEST,
    PARSE_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    RequestId,
    jsonrpc_message_adapter,
)
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from taskcell.mcp.transport.oversized import WINDOW, Oversized
from taskcell.model import MIB
from taskcell.text import LONE_SURROGATE, without_halves

#: Bytes of one line. The largest part of a call is its stdin or a file's content; more than this belongs in a file.
MAX_LINE = 16 * MIB
#: Messages of one batch: far more than a client has to say at once.
MAX_BATCH = 100
#: What the handshake must have, and clients written by hand forget.
FORGOTTEN: Mapping[str, Any] = {"capabilities": {}, "clientInfo": {"name": "unknown", "version": "0"}}


class Malformed(Exception):
    """A line is not a message that MCP knows. `reply` tells the client; None where JSON-RPC forbids an answer."""

    def __init__(self, reason: str, reply: JSONRPCError | None) -> None:
        super().__init__(reason)
        self.reply = reply


class LineSplitter:
    """Cuts a byte stream into lines.

    Arguments:
        limit: bytes of a line; of a longer one, only its two ends are kept, so memory stays bounded.
    """

    def __init__(self, limit: int = MAX_LINE) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._scanned = 0
        self._head: bytes | None = None

    def feed(self, data: bytes) -> Iterator[bytes | Oversized]:
        """Take bytes; yield each line that is whole, without its end, and the two ends of one over the limit."""
        self._buffer += data
        while (end := self._buffer.find(b"\n", self._scanned)) >= 0:
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            self._scanned = 0
            head, self._head = self._head, None
            if head is None and len(line) <= self._limit:
                yield line
            else:
                yield Oversized(line[:WINDOW] if head is None else head, line[-WINDOW:])
        if self._head is None and len(self._buffer) > self._limit:
            self._head = bytes(self._buffer[:WINDOW])
        if self._head is not None:
            del self._buffer[:-WINDOW]
        self._scanned = len(self._buffer)

    @property
    def kept(self) -> int:
        """Bytes of the line that has not ended yet."""
        return len(self._buffer) + len(self._head or b"")

    def end(self) -> bytes:
        """The bytes after the end of the last line, when no more come."""
        rest = b"" if self._head is not None else bytes(self._buffer)
        self._buffer.clear()
        self._scanned = 0
        return rest


def too_long(identity: RequestId | None = None, limit: int = MAX_LINE) -> JSONRPCError:
    """The answer to a line over the limit, under the id that was found in it."""
    said = f"a message is at most {limit} bytes long, and this one was skipped; send its data in several calls."
    return _error(PARSE_ERROR, f"Parse error: {said}", identity)


def batch(line: bytes) -> list[bytes]:
    """Return a line for each message of a batch; none if the line is no batch, or one that nobody sends.

    Of the protocol's revisions only 2025-03-26 has batches, and asks every server to take them.
    """
    if not line.lstrip().startswith(b"["):
        return []
    try:
        messages = _load(line)
    except (ValueError, RecursionError):
        return []
    if len(messages) > MAX_BATCH or not all(isinstance(message, dict) for message in messages):
        return []
    return [json.dumps(message).encode() for message in messages]


def decode(line: bytes) -> JSONRPCMessage:
    """Parse one line. Raises Malformed, with the answer that the client gets."""
    try:
        message = jsonrpc_message_adapter.validate_json(line, by_name=False)
    except ValidationError:
        call = _call_with_broken_text(line)
        if call is None:
            raise _diagnose(line) from None
        return call
    if isinstance(message, JSONRPCRequest) and message.method == "initialize":
        message.params = {**FORGOTTEN, **(message.params or {})}
    if isinstance(message, JSONRPCNotification) and b'"id"' in line:
        # The models let a request with an id such as null or 1.5 pass as a notification, which nobody would answer.
        value = _load(line)
        if "id" in value:
            raise _invalid("the id must be a string or an integer", None)
    return message


def _call_with_broken_text(line: bytes) -> JSONRPCRequest | None:
    """Parse a tool's call that is as it should be, but for halves of surrogate pairs in its arguments.

    A model wrote those, and the tool's own refusal reaches the model. Names of arguments hold U+FFFD instead.
    """
    try:
        value = _load(line)
        if not isinstance(value, dict) or value.get("method") != "tools/call":
            return None
        value["params"]["arguments"] = _without_broken_names(value["params"]["arguments"])
        message = jsonrpc_message_adapter.validate_python(value, by_name=False)
    except (ValueError, RecursionError, TypeError, LookupError):  # pydantic's ValidationError is a ValueError
        return None
    return message if isinstance(message, JSONRPCRequest) else None


def _without_broken_names(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_broken_names(item) for item in value]
    if isinstance(value, dict):
        return {without_halves(name): _without_broken_names(item) for name, item in value.items()}
    return value


def encode(message: JSONRPCMessage) -> bytes:
    """One line for the client, with its end. An answer that JSON cannot hold becomes an error for the same request."""
    try:
        text = message.model_dump_json(by_alias=True, exclude_unset=True)
    except (PydanticSerializationError, ValueError):
        if not isinstance(message, JSONRPCRequest | JSONRPCResponse | JSONRPCError):
            raise
        failure = _error(INTERNAL_ERROR, "Internal error: the answer cannot be written as JSON.", message.id)
        text = failure.model_dump_json(by_alias=True, exclude_unset=True)
    return text.encode() + b"\n"


def _diagnose(line: bytes) -> Malformed:
    try:
        value = _load(line)
    except (ValueError, RecursionError) as error:
        return Malformed(reason := _why_no_json(error), _error(PARSE_ERROR, f"Parse error: {reason}.", None))
    if not isinstance(value, dict):
        return _invalid(f"a message is one JSON object, or a batch of 1 to {MAX_BATCH}", None)
    if "method" not in value and ("result" in value or "error" in value):
        return Malformed("a malformed response was dropped", None)
    return _invalid(_fault(value), _identity(value))


def _why_no_json(error: Exception) -> str:
    match error:
        case UnicodeDecodeError():
            return f"byte {error.start} of the message is not UTF-8"
        case RecursionError():
            return "the message is nested too deeply"
        case json.JSONDecodeError():
            return f"{error.msg} at character {error.pos}"
        case _:  # Python converts no number of more than some thousand digits
            return "a number in the message is too long"


def _fault(value: dict[str, Any]) -> str:
    if LONE_SURROGATE.search(json.dumps(value, ensure_ascii=False)):
        return "a string holds half of a surrogate pair, which is not a character"
    faults = {
        '"jsonrpc" must be "2.0"': value.get("jsonrpc") != "2.0",
        '"method" must be a string': not isinstance(value.get("method"), str),
        '"params" must be an object': not isinstance(value.get("params", {}), dict),
    }
    return next((fault for fault, found in faults.items() if found), "the message does not follow JSON-RPC 2.0")


def _load(line: bytes) -> Any:
    return json.loads(line.decode())


def _identity(value: dict[str, Any]) -> RequestId | None:
    found = value.get("id")
    return found if isinstance(found, str | int) and not isinstance(found, bool) else None


def _invalid(reason: str, identity: RequestId | None) -> Malformed:
    return Malformed(reason, _error(INVALID_REQUEST, f"Invalid request: {reason}.", identity))


def _error(code: int, message: str, identity: RequestId | None) -> JSONRPCError:
    return JSONRPCError(jsonrpc="2.0", id=identity, error=ErrorData(code=code, message=message))
