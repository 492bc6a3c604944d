"""Picks the lines that fit into an answer, and makes each fit to be shown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from taskcell.files.answers import FileText
from taskcell.text import is_visible, visible

#: Characters of one line that are shown; a longer one is cut.
LINE_CHARS = 2000
#: Characters of an answer that are kept free for notes, those on the sandbox among them.
_NOTES_CHARS = 1000
#: Characters of the sign that a line is cut.
_CUT_CHARS = 40
_ESCAPED = re.compile("[\udc80-\udcff]")


@dataclass(frozen=True, slots=True)
class Line:
    """A line, and the bytes of its end that are not here."""

    text: str
    missing: int


@dataclass(frozen=True, slots=True)
class Lines:
    """Some lines of a file.

    Arguments:
        first: number of the first one.
        total: lines of the file; None: not counted.
        ends_whole: the file's last line ends with a line break.
        column: the character (from 1) that the lines here begin with.
    """

    lines: Sequence[Line]
    first: int
    total: int | None
    ends_whole: bool
    column: int = 1


def room_for_text(output_chars: int) -> int:
    """Return how many characters of an answer its lines may take."""
    return output_chars - min(output_chars // 4, _NOTES_CHARS)


def text_of_lines(path: str, size: int, part: Lines, output_chars: int) -> FileText:
    """Return as many of the lines as fit. `size`: bytes of the file."""
    room, used, first = room_for_text(output_chars), 0, part.first
    beside = len(str(first + len(part.lines))) + 2  # the number, a tab and a line break
    most = min(LINE_CHARS, max(1, room - beside - _CUT_CHARS))
    kept: list[str] = []
    cut, odd, hidden = [], [], []
    for number, line in enumerate(part.lines, first):
        shown = _shown(line, most)
        used += len(shown) + beside
        if kept and used > room:
            break
        kept.append(visible(_ESCAPED.sub("\ufffd", shown)))
        cut += [number] if shown is not line.text else []
        odd += [number] if _ESCAPED.search(shown) else []
        hidden += [number] if not is_visible(shown) else []
    last = first + len(kept) - 1
    total, column = part.total, part.column
    more = total is None or last < total
    text = "\n".join(kept) + ("\n" if kept and (part.ends_whole or more) else "")
    notes = []
    if cut:
        notes.append(f"Too long, cut: line {_some(cut)}; column={column + most} with 'offset' shows more of it.")
    if odd:
        notes.append(f"Bytes that are not of the encoding are shown as U+FFFD: line {_some(odd)}; an edit keeps them.")
    if hidden:
        notes.append(f"Control characters are shown as symbols, as ␛ for ESC: line {_some(hidden)}.")
    if column > 1:
        notes.append(f"The lines are shown from character {column} on.")
    return FileText(path, text, first, last, total, size, more, tuple(notes))


def _shown(line: Line, most: int) -> str:
    """Return a line of at most so many characters, and what it says if more of it are missing."""
    if len(line.text) <= most and not line.missing:
        return line.text
    if line.missing:
        left = line.missing + len(line.text[most:].encode("utf-8", "surrogateescape"))
        return f"{line.text[:most]}… [{left:,} bytes more]"
    return f"{line.text[:most]}… [{len(line.text) - most:,} characters more]"


def _some(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:5])) + (", …" if len(numbers) > 5 else "")
