"""Values that were read back from a file: each of its type and in its range, whoever wrote the file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

#: Characters of one text. Names of tasks and paths of folders are far below it.
MAX_TEXT = 8192
#: The largest number: as floats, too, all below it are exact.
MAX_WHOLE = 2**53

T = TypeVar("T")


def text(value: object) -> str:
    """Raises TypeError, ValueError: it is not a text, or longer than MAX_TEXT."""
    if not isinstance(value, str):
        raise TypeError("it is not a text")
    if len(value) > MAX_TEXT:
        raise ValueError("it is too long")
    return value


def whole(value: object) -> int:
    """Raises TypeError, ValueError: it is not a whole number from 0 to MAX_WHOLE."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError("it is not a whole number")
    if not 0 <= value <= MAX_WHOLE:
        raise ValueError("it is out of range")
    return value


def number(value: object) -> float:
    """Raises TypeError, ValueError: it is not a number from 0 to MAX_WHOLE."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("it is not a number")
    if not 0 <= value <= MAX_WHOLE:  # false for what is not a number (NaN), too
        raise ValueError("it is out of range")
    return value


def truth(value: object) -> bool:
    """Raises TypeError: it is neither true nor false."""
    if not isinstance(value, bool):
        raise TypeError("it is neither true nor false")
    return value


_CHECKS: Mapping[str, Callable[[object], object]] = {"str": text, "bool": truth, "int": whole, "float": number}


def record(kind: Callable[..., T], table: Mapping[str, Any]) -> T:
    """A dataclass of texts, numbers and truths from a table; what the class does not know is left out.

    Raises what a table of other things brings: TypeError, ValueError, AttributeError.
    """
    known = {field.name: _CHECKS[str(field.type)] for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: known[name](value) for name, value in table.items() if name in known})
