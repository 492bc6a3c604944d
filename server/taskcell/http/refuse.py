"""Answers to requests over HTTP that are refused before MCP sees them."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import JSONResponse

#: JSON-RPC's code for a request that is not valid. MCP clients show the message of such an error.
_INVALID_REQUEST = -32600


def refusal(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return an answer with an error as MCP clients read it.

    Arguments:
        status: of HTTP.
        sentence: what is wrong, and what to do next.
    """
    body = {"jsonrpc": "2.0", "id": None, "error": {"code": _INVALID_REQUEST, "message": sentence}}
    return JSONResponse(body, status, headers=headers)
