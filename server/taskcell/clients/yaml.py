"""Changes one member of a YAML text, and leaves the rest as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.util import load_yaml_guess_indent

from taskcell.clients.lines import spliced

#: Columns: no value is folded over lines.
_WIDTH = 100_000


def loads(text: str) -> dict[str, Any]:
    """Return the mapping that a text holds; an empty text is an empty mapping. Raises ValueError with a sentence."""
    reader = YAML(typ="safe", pure=True)
    try:
        data = reader.load(text)
    except YAMLError as error:
        raise ValueError(_sentence(error)) from None
    except RecursionError:
        raise ValueError("the text is nested too deeply") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ValueError("a mapping was expected")  # noqa: TRY004 - the text is wrong, and not the caller
    return data


def _sentence(error: YAMLError) -> str:
    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem or error.context}"
    return " ".join(str(error).split())


def edit(text: str, path: Sequence[str], value: Mapping[str, Any] | None) -> str:
    """Return the text with the member at `path` set, or without it where `value` is None. Raises ValueError."""
    return spliced(text, path, value, loads, _splice) or _library(text, path, value)


def _splice(text: str, path: Sequence[str], value: Mapping[str, Any] | None) -> str:
    """Cut the member's lines out of its mapping, and write the new ones in their place, or as the first of it.

    ruamel.yaml counts a comment below a member to that member, and would move or delete it.
    """
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = text.splitlines(keepends=True)
    parent = _writer().load(text)
    for key in path[:-1]:
        if parent is None or key not in parent:
            return text + ("" if text.endswith("\n") or not text else newline) + _block(path, value, 0, newline)
        parent = parent[key]
    if parent is None or not parent:
        raise ValueError("the mapping has no line of its own")
    column, name = parent.lc.col, path[-1]
    start = min(parent.lc.key(key)[0] for key in parent)
    if name in parent:
        start = parent.lc.key(name)[0]
        end = start + 1
        while end < len(lines) and (not lines[end].strip() or _indent(lines[end]) > column):
            end += 1
        while not lines[end - 1].strip() or lines[end - 1].lstrip().startswith("#"):
            end -= 1
        del lines[start:end]
    if value is not None:
        lines.insert(start, _block([name], value, column, newline))
    return "".join(lines)


def _block(path: Sequence[str], value: Mapping[str, Any] | None, column: int, newline: str) -> str:
    nested: Any = value
    for key in reversed(path):
        nested = {key: nested}
    out = StringIO()
    _writer().dump(nested, out)
    return "".join(" " * column + line + newline for line in out.getvalue().splitlines())


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _library(text: str, path: Sequence[str], value: Mapping[str, Any] | None) -> str:
    """For mappings that are not written as blocks of lines, such as `{}`."""
    _, indent, block_indent = load_yaml_guess_indent(text)
    writer = _writer()
    document = writer.load(text)
    if indent is not None:
        writer.indent(mapping=2, sequence=indent, offset=block_indent)
    try:
        root = {} if document is None else document
        inner = root
        for key in path[:-1]:
            if inner.get(key) is None:
                inner[key] = {}
            inner = inner[key]
        if value is None:
            del inner[path[-1]]
        else:
            inner[path[-1]] = dict(value)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(str(error)) from None
    out = StringIO()
    writer.dump(root, out)
    return out.getvalue()


def _writer() -> YAML:
    writer = YAML(typ="rt", pure=True)
    writer.preserve_quotes = True
    writer.width = _WIDTH
    return writer
