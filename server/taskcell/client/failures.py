"""The errors of the client: one class for each code that a server answers with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class CellError(Exception):
    """The root of the client's errors; `str(error)` is the server's sentence. `code` is one of docs/programs.md."""

    code: ClassVar[str] = "internal"

    def __init__(self, message: str, fields: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.fields = dict(fields or {})


class NotFoundError(CellError):
    """There is no such file, folder, program, process, tool or shell."""

    code = "not_found"


class FolderError(CellError):
    """The path is a folder, and must not be one."""

    code = "is_a_directory"


class ForbiddenError(CellError):
    """The sandbox's user, or this token, may not do it."""

    code = "permission_denied"


class DeniedError(CellError):
    """The server's policy denies it; `rule` names the rule that decided."""

    code = "denied"

    @property
    def rule(self) -> str:
        return str(self.fields.get("rule", ""))


class ArgumentError(CellError):
    """An argument is wrong; the message says which, and what it may be."""

    code = "invalid_argument"


class TooLargeError(CellError):
    """It is larger than what is allowed."""

    code = "too_large"


class CapacityError(CellError):
    """There is no room now: try again when something else has ended."""

    code = "no_capacity"


class EngineFailedError(CellError):
    """The server's container engine fails or does not answer."""

    code = "engine_unavailable"


class ImageMissingError(CellError):
    """The image is not on the engine."""

    code = "image_missing"


class LostError(CellError):
    """The sandbox or the server went away. What ran is never run again."""

    code = "lost"


class TookTooLongError(CellError):
    """It took too long."""

    code = "timeout"


_BY_CODE = {
    kind.code: kind
    for kind in (
        *(NotFoundError, FolderError, ForbiddenError, DeniedError, ArgumentError, TooLargeError, CapacityError),
        *(EngineFailedError, ImageMissingError, LostError, TookTooLongError),
    )
}


def error_of(fields: Mapping[str, Any]) -> CellError:
    """Return the error that a server's fields describe."""
    kind = _BY_CODE.get(str(fields.get("code")), CellError)
    return kind(str(fields.get("message", "The server failed without a word.")), fields)
