"""Changes one table of a TOML text, and leaves the rest as it is."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError

from taskcell.clients.lines import spliced


def loads(text: str) -> dict[str, Any]:
    """Return what a text holds. Raises ValueError with a sentence."""
    try:
        return tomllib.loads(text.removeprefix("\ufeff"))
    except RecursionError:
        raise ValueError("the text is nested too deeply") from None


def edit(text: str, path: Sequence[str], value: Mapping[str, Any] | None) -> str:
    """Return the text with the table at `path` set, or without it where `value` is None. Raises ValueError."""
    return spliced(text, path, value, loads, _splice) or _library(text, path, value)


def _splice(text: str, path: Sequence[str], value: Mapping[str, Any] | None) -> str:
    """Cut the table's lines out, with those of the tables in it, and write the new ones in their place or at the end.

    A comment above the next table is that table's: tomlkit would count it to the table before.
    """
    lines = text.splitlines(keepends=True)
    own = re.compile(r"\s*\[\s*" + r"\s*\.\s*".join(f"[\"']?{re.escape(key)}[\"']?" for key in path) + r"\s*[.\]]")
    header = re.compile(r"\s*\[")
    heads = [at for at, line in enumerate(lines) if header.match(line)]
    mine = [at for at in heads if own.match(lines[at])]
    start = mine[0] if mine else len(lines)
    for head in reversed(mine):
        end = min((at for at in heads if at > head), default=len(lines))
        while end > head and (not lines[end - 1].strip() or lines[end - 1].lstrip().startswith("#")):
            end -= 1
        del lines[head:end]
    while mine and start < len(lines) and not lines[start].strip():
        del lines[start]
    if value is not None:
        document = tomlkit.document()
        _put(document, path, value)
        lines[start:start] = _block(lines, start, tomlkit.dumps(document), "\r\n" if "\r\n" in text else "\n")
    elif mine and start == len(lines):
        while lines and not lines[-1].strip():
            del lines[-1]
    return "".join(lines)


def _block(lines: list[str], at: int, block: str, newline: str) -> list[str]:
    """The lines of a new table, with an empty line before and after where something stands there."""
    before, after = lines[:at][-1:], lines[at : at + 1]
    ended = [newline] if before and not before[0].endswith("\n") else []
    apart = [newline] if before and before[0].strip() else []
    return [*ended, *apart, block.strip("\n").replace("\n", newline) + newline, *([newline] if after else [])]


def _library(text: str, path: Sequence[str], value: Mapping[str, Any] | None) -> str:
    """For tables that are not written as blocks of lines: inline ones, and those of dotted keys."""
    try:
        document = tomlkit.parse(text)
        if value is not None:
            _put(document, path, value)
        else:
            inner: Any = document
            for key in path[:-1]:
                inner = inner[key]
            del inner[path[-1]]
        return tomlkit.dumps(document)
    except (TOMLKitError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(str(error)) from None


def _put(document: Any, path: Sequence[str], value: Mapping[str, Any]) -> None:
    inner = document
    for key in path[:-1]:
        if key not in inner:
            inner[key] = tomlkit.table(is_super_table=True)
        inner = inner[key]
    inner[path[-1]] = dict(value)
