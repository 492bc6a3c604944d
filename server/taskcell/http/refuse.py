"""Answers to requests over HTTP that are refused before MCP sees them."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import JSONResponse

from taskcell.errors import ErrorCode, HeldElsewhere, NoRoom, TaskcellError
from taskcell.http.message import INVALID_REQUEST

#: Seconds after which a client may try again that had to wait for others' calls.
BUSY_RETRY_AFTER = 5
_STATUS: Mapping[ErrorCode, int] = {
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.IS_A_DIRECTORY: 409,
    ErrorCode.PERMISSION_DENIED: 403,
    ErrorCode.DENIED: 403,
    ErrorCode.INVALID_ARGUMENT: 400,
    ErrorCode.TOO_LARGE: 413,
    ErrorCode.NO_CAPACITY: 507,
    ErrorCode.TIMEOUT: 504,
    ErrorCode.LOST: 502,
    ErrorCode.ENGINE_UNAVAILABLE: 503,
    ErrorCode.IMAGE_MISSING: 503,
}
#: The codes of answers without an error of their own that blame nothing of the request.
_BARE = {502: ErrorCode.LOST, 504: ErrorCode.TIMEOUT}


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


def refused(error: TaskcellError) -> JSONResponse:
    """Return the answer of a route for programs and files to what could not be done."""
    if isinstance(error, NoRoom):
        return error_answer(429, str(error), {"retry-after": str(BUSY_RETRY_AFTER)}, error)
    return error_answer(
        421 if isinstance(error, HeldElsewhere) else _STATUS.get(error.code, 500), str(error), {}, error
    )


def error_answer(
    status: int, sentence: str, headers: Mapping[str, str] | None = None, error: TaskcellError | None = None
) -> JSONResponse:
    """An answer that says what is wrong. The connection ends: of the body there may be more."""
    fields = error.fields() if error else {"code": _BARE.get(status, ErrorCode.INVALID_ARGUMENT).value}
    content = {"error": {**fields, "message": sentence}}
    return JSONResponse(content, status, headers={"connection": "close", **(headers or {})})
