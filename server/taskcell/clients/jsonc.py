"""Changes one member of a JSON text with comments, and leaves every other byte as it is.

No kept library does that in Python without a second runtime: those that read comments write the whole text anew.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

_SPACE = re.compile(r"[ \t\r\n]*")
_TRIVIA = re.compile(r"(?:[ \t\r\n]+|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_REST_OF_LINE = re.compile(r"(?:[ \t]+|/\*[^\n]*?\*/)*(?://[^\r\n]*)?")
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
_SCALAR = re.compile(r"(?:-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null)(?![\w.])")
_INDENT = re.compile(r"^([ \t]+)\S", re.MULTILINE)

#: What an empty file stands for.
_EMPTY = "{}\n"


@dataclass(frozen=True, slots=True)
class Value:
    """A value and where it stands in the text. `members` are an object's, in their order."""

    start: int
    end: int
    data: Any
    members: tuple[Member, ...] | None = None

    def last(self, key: str) -> int | None:
        """Return which member has a key: the last one, as every reader of JSON takes it."""
        found = [at for at, member in enumerate(self.members or ()) if member.key == key]
        return found[-1] if found else None


@dataclass(frozen=True, slots=True)
class Member:
    """A member of an object. `comma`: where the comma after it stands, if there is one."""

    key: str
    start: int
    value: Value
    comma: int | None


def loads(text: str, *, comments: bool = True) -> dict[str, Any]:
    """Return the object that a text holds; an empty text is an empty object.

    Arguments:
        comments: comments and commas after a last member are allowed.

    Raises:
        ValueError: a sentence with line and column.
    """
    root = _Parser(text if text.strip("\ufeff \t\r\n") else _EMPTY, comments).root()
    assert isinstance(root.data, dict)
    return root.data


def edit(text: str, path: Sequence[str], value: object | None) -> str:
    """Return the text with the member at `path` set, or without it where `value` is None.

    Objects on the way are made where they are not there, or null. Raises ValueError if something else is in the way.
    """
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    body = text.removeprefix(mark)
    body = body if body.strip() else _EMPTY
    return mark + (_remove(body, path) if value is None else _put(body, path, value))


def _put(text: str, path: Sequence[str], value: object) -> str:
    here = _Parser(text).root()
    for depth, key in enumerate(path):
        if here.members is None:
            raise ValueError(f"'{path[depth - 1]}' is not an object")
        at = here.last(key)
        found = None if at is None else here.members[at]
        rest: object = value
        for name in reversed(path[depth + 1 :]):
            rest = {name: rest}
        if found is None:
            return _insert(text, here, key, rest)
        if depth == len(path) - 1 or found.value.data is None:
            written = _written(text, rest, _indent_at(text, found.start), inline=_is_inline(text, here))
            return text[: found.value.start] + written + text[found.value.end :]
        here = found.value
    raise ValueError("a path has at least one key")


def _insert(text: str, parent: Value, key: str, value: object) -> str:
    """Put a new member after the last one."""
    assert parent.members is not None
    newline = "\r\n" if "\r\n" in text else "\n"
    if parent.members and _is_inline(text, parent):
        last = parent.members[-1]
        comma = "" if last.comma is not None else ","
        at = last.value.end if last.comma is None else last.comma + 1
        member = f"{comma} {_quoted(key)}: {_written(text, value, '', inline=True)}"
        return text[:at] + member + text[at:]
    if not parent.members:
        outer = _indent_at(text, parent.start)
        inner = outer + _unit(text)
        member = f"{newline}{inner}{_quoted(key)}: {_written(text, value, inner)}"
        # What stands between the braces is space and comments.
        kept = text[parent.start + 1 : parent.end - 1].rstrip()
        return f"{text[: parent.start + 1]}{kept}{member}{newline}{outer}{text[parent.end - 1 :]}"
    last = parent.members[-1]
    inner = _indent_at(text, last.start)
    member = f"{newline}{inner}{_quoted(key)}: {_written(text, value, inner)}"
    after = last.value.end if last.comma is None else last.comma + 1
    rest = _REST_OF_LINE.match(text, after)
    assert rest is not None
    at = rest.end() if text[rest.end() : rest.end() + 1] in ("\r", "\n") else after
    if last.comma is not None:
        return text[:at] + member + "," + text[at:]
    return text[: last.value.end] + "," + text[last.value.end : at] + member + text[at:]


def _remove(text: str, path: Sequence[str]) -> str:
    here = _Parser(text).root()
    for key in path[:-1]:
        at = here.last(key)
        if at is None or here.members is None:
            return text
        here = here.members[at].value
    at = here.last(path[-1])
    if at is None or here.members is None:
        return text
    member = here.members[at]
    end = member.value.end if member.comma is None else member.comma + 1
    start, end = _whole_lines(text, member.start, end)
    without = text[:start] + text[end:]
    before = here.members[at - 1].comma if at else None
    if member.comma is None and before is not None:
        # The member before is the last one now.
        without = without[:before] + without[before + 1 :]
    return without


def _whole_lines(text: str, start: int, end: int) -> tuple[int, int]:
    """Widen a range to the line's end and the space before it, where nothing else is on its lines."""
    before = start - len(text[:start]) + len(text[:start].rstrip(" \t"))
    after = end + len(text[end:]) - len(text[end:].lstrip(" \t"))
    if before > 0 and text[before - 1] == "\n" and text[after : after + 1] in ("\r", "\n"):
        line = before - (2 if text[before - 2 : before] == "\r\n" else 1)
        return line, after
    return (before, end) if text[before - 1 : before] == "," else (start, after)


def _is_inline(text: str, parent: Value) -> bool:
    return "\n" not in text[parent.start : parent.end] and bool(parent.members)


def _written(text: str, value: object, indent: str, *, inline: bool = False) -> str:
    if inline:
        return json.dumps(value, ensure_ascii=False)
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = json.dumps(value, indent=_unit(text), ensure_ascii=False).split("\n")
    return (newline + indent).join(lines)


def _quoted(key: str) -> str:
    return json.dumps(key, ensure_ascii=False)


def _unit(text: str) -> str:
    """The text's own indentation by one level."""
    found = _INDENT.search(text)
    return found[1] if found else "  "


def _indent_at(text: str, at: int) -> str:
    line = text[text.rfind("\n", 0, at) + 1 : at]
    return line[: len(line) - len(line.lstrip(" \t"))]


class _Parser:
    """A descent over the text that remembers where everything stands."""

    def __init__(self, text: str, comments: bool = True) -> None:
        self._text = text
        self._comments = comments
        self._trivia = _TRIVIA if comments else _SPACE
        self._at = 1 if text.startswith("\ufeff") else 0

    def root(self) -> Value:
        self._skip()
        if not self._text.startswith("{", self._at):
            self._fail("an object was expected")
        try:
            value = self._value()
        except RecursionError:
            self._fail("the text is nested too deeply")
        self._skip()
        if self._at < len(self._text):
            self._fail("nothing was expected after the end of the object")
        return value

    def _value(self) -> Value:
        start, text = self._at, self._text
        if text.startswith("{", start):
            members = self._members()
            return Value(start, self._at, {member.key: member.value.data for member in members}, members)
        if text.startswith("[", start):
            items = self._items()
            return Value(start, self._at, items)
        if text.startswith('"', start):
            data = self._string()
            return Value(start, self._at, data)
        found = _SCALAR.match(text, start)
        if found is None:
            self._fail("a value was expected")
        self._at = found.end()
        return Value(start, self._at, json.loads(found[0]))

    def _string(self) -> str:
        found = _STRING.match(self._text, self._at)
        if found is None:
            self._fail("a string was expected, in double quotes and on one line")
        try:
            data = json.loads(found[0])
        except ValueError:
            self._fail("a string has a faulty escape")
        self._at = found.end()
        assert isinstance(data, str)
        return data

    def _members(self) -> tuple[Member, ...]:
        members: list[Member] = []
        self._at += 1
        while not self._closes("}", bool(members)):
            start, key = self._at, self._string()
            self._skip()
            if not self._text.startswith(":", self._at):
                self._fail("a ':' was expected")
            self._at += 1
            self._skip()
            value = self._value()
            members.append(Member(key, start, value, self._comma("}")))
        return tuple(members)

    def _items(self) -> list[Any]:
        items: list[Any] = []
        self._at += 1
        while not self._closes("]", bool(items)):
            items.append(self._value().data)
            self._comma("]")
        return items

    def _closes(self, bracket: str, after_comma: bool) -> bool:
        self._skip()
        if not self._text.startswith(bracket, self._at):
            return False
        if after_comma and not self._comments and self._text[: self._at].rstrip().endswith(","):
            self._fail(f"a comma stands before the '{bracket}'")
        self._at += 1
        return True

    def _comma(self, bracket: str) -> int | None:
        """Take the comma after a member or an item, and return where it stands."""
        self._skip()
        if self._text.startswith(",", self._at):
            self._at += 1
            return self._at - 1
        if not self._text.startswith(bracket, self._at):
            self._fail(f"a ',' or a '{bracket}' was expected")
        return None

    def _skip(self) -> None:
        found = self._trivia.match(self._text, self._at)
        assert found is not None
        self._at = found.end()

    def _fail(self, sentence: str) -> NoReturn:
        line = self._text.count("\n", 0, self._at) + 1
        column = self._at - self._text.rfind("\n", 0, self._at)
        raise ValueError(f"line {line}, column {column}: {sentence}")
