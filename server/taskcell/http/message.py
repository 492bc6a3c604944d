"""Looks at a request's body before MCP does: whether it is one JSON-RPC message, and whether it can be answered."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

#: JSON-RPC's codes for what is not JSON, and for JSON that is not a request.
PARSE_ERROR, INVALID_REQUEST = -32700, -32600


@dataclass(frozen=True, slots=True)
class NotAMessage(Exception):
    """What is wrong with a body, as a sentence for the client.

    Arguments:
        code: of JSON-RPC.
    """

    sentence: str
    code: int = INVALID_REQUEST


def message_of(body: bytes) -> dict[str, Any]:
    """Return the message that a body is. Raises NotAMessage.

    A request whose id is neither a text nor a whole number would count as a notification further on, and its client
    would wait for an answer that never comes.
    """
    try:
        message = json.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise NotAMessage("The body is not JSON in UTF-8; send one JSON-RPC message.", PARSE_ERROR) from None
    if isinstance(message, list):
        raise NotAMessage("The body is a list; send each message as a request of its own.")
    if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
        raise NotAMessage('The body is not a JSON-RPC message: an object with "jsonrpc": "2.0".')
    if "method" in message:
        _check_request(message)
    elif not ("id" in message and ("result" in message or "error" in message)):
        raise NotAMessage("The message has neither a method, nor an id with a result or an error.")
    return message


def _check_request(message: dict[str, Any]) -> None:
    if not isinstance(message["method"], str):
        raise NotAMessage("The message's method is not a text.")
    if not isinstance(message.get("params", {}), dict | None):
        raise NotAMessage("The message's params are not an object.")
    identity = message.get("id", "")
    if isinstance(identity, bool) or not isinstance(identity, str | int):
        raise NotAMessage("The request's id is neither a text nor a whole number; a notification has no id.")


def _refuse(constant: str) -> None:
    raise ValueError(constant)
