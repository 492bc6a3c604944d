"""Answers that say why something of a task is not served, for programs and people."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import JSONResponse

from taskcell.errors import ErrorCode, TaskcellError

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


def failure(error: TaskcellError, status: int | None = None, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The answer to a request that ended with an error.

    Arguments:
        status: of HTTP; None: the one of the error's kind.
    """
    return _answer(status or _STATUS.get(error.code, 500), error.fields(), str(error), headers)


def refused_request(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The answer to a request that cannot be served as it is."""
    return _answer(status, {"code": ErrorCode.INVALID_ARGUMENT.value}, sentence, headers)


def _answer(
    status: int, fields: Mapping[str, object], sentence: str, headers: Mapping[str, str] | None
) -> JSONResponse:
    """The connection ends: of the body there may be more."""
    content = {"error": {**fields, "message": sentence}}
    return JSONResponse(content, status, headers={"connection": "close", **(headers or {})})
