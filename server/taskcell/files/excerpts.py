"""Shows the lines of a text that an edit changed."""

from __future__ import annotations

import re
from collections.abc import Sequence

from taskcell.files.answers import ChangedLines
from taskcell.text import visible

#: Lines before and after a changed place that are shown, lines of one place, places, and characters of a line.
_AROUND, _LINES, _PLACES, _CHARS = 1, 24, 6, 300
_ESCAPED = re.compile("[\udc80-\udcff]")


def excerpts_of(text: str, spans: Sequence[tuple[int, int]]) -> tuple[list[ChangedLines], list[int]]:
    """Return the first changed places with a line around each, and the number of the line where each begins.

    Arguments:
        spans: where the new text is, as (start, end), in order.
    """
    numbers: list[int] = []
    line, at = 1, 0
    ranges: list[list[int]] = []
    for start, end in spans:
        line, at = line + text.count("\n", at, start), start
        numbers.append(line)
        # The line break at the end of the new text does not make the next line a new one.
        last = line + text.count("\n", start, max(start, end - 1))
        if ranges and line - _AROUND <= ranges[-1][1] + _AROUND + 1:
            ranges[-1][1] = max(ranges[-1][1], last)
        elif len(ranges) < _PLACES:
            ranges.append([line, last])
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    return [_excerpt(lines, max(1, first - _AROUND), last + _AROUND) for first, last in ranges], numbers


def _excerpt(lines: Sequence[str], first: int, last: int) -> ChangedLines:
    some = lines[first - 1 : last]
    more = max(0, len(some) - _LINES)
    return ChangedLines(first, tuple(map(_shown, some[:_LINES])), more)


def _shown(line: str) -> str:
    cut = f"{line[:_CHARS]}…" if len(line) > _CHARS else line
    return visible(_ESCAPED.sub("\ufffd", cut))
