"""Changes of a text by its lines, held against what a parser reads in it afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Parse = Callable[[str], dict[str, Any]]
Splice = Callable[[str, Sequence[str], Mapping[str, Any] | None], str]


def spliced(
    text: str, path: Sequence[str], value: Mapping[str, Any] | None, parse: Parse, splice: Splice
) -> str | None:
    """Return the text with a change by its lines; None where that would not be just the change that is wanted."""
    try:
        changed = splice(text, path, value)
        return changed if is_just(parse(changed), parse(text), path, value) else None
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


def is_just(
    changed: Mapping[str, Any], before: Mapping[str, Any], path: Sequence[str], value: Mapping[str, Any] | None
) -> bool:
    """Whether data differs from what it was before in the member at `path` alone, which is `value` or not there.

    A table that has no member any more may be empty, null or not there: TOML has no table without a line of its own.
    """
    expected = with_member(before, path, value)
    top = path[0]
    return {**changed, top: changed.get(top) or {}} == {**expected, top: expected.get(top) or {}}


def with_member(data: Mapping[str, Any], path: Sequence[str], value: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return data with the member at `path` set, or without it where `value` is None."""
    key, *rest = path
    changed = dict(data)
    if rest:
        inner = changed.get(key)
        if value is not None or isinstance(inner, Mapping):
            changed[key] = with_member(inner if isinstance(inner, Mapping) else {}, rest, value)
    elif value is None:
        changed.pop(key, None)
    else:
        changed[key] = dict(value)
    return changed
