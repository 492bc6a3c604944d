"""Answers to requests over HTTP that are refused before MCP sees them."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import JSONResponse

from taskcell.http.message import INVALID_REQUEST


def refusal(
    status: int, sentence: str, headers: Mapping[str, str] | None = None, *, code: int = INVALID_REQUEST
) -> JSONResponse:
    """Return an answer with an error as MCP clients read it.

    Arguments:
        status: of HTTP.
        sentence: what is wrong, and what to do next.
        code: of JSON-RPC.
    """
    body = {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": sentence}}
    return JSONResponse(body, status, headers=headers)
