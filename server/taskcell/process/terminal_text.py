"""What a terminal would show of output: no control characters, and of an overwritten line what is left at its end.

Lines are looked at one by one. What moves the cursor to another line (a full-screen program, several progress bars)
is not modelled: such text stays in the order in which it was written.
"""

from __future__ import annotations

import re
import unicodedata

from taskcell.text import visible, without_halves

#: Characters within which a control sequence ends; the text of a longer one is shown.
SEQUENCE_MAX = 128
#: Terminals ignore NUL, but it separates what is around it.
NUL_SHOWN = visible("\0")
#: Columns that a cursor movement reaches at most beyond the text: it must not cost memory.
_COLUMNS_MAX = 250
_TAB = 8
#: Characters of colours and styles that are kept for one character of an overwritten line.
_STYLE_MAX = 64
#: C0 but tab and newline, DEL, and C1.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_OTHER_CONTROL = re.compile("[\x01-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f]")
#: ECMA-48: CSI with its parameters, OSC to BEL or ST, the other strings to ST, and the escapes of two or three bytes.
_STRING = "[^\x00-\x1f\x7f-\x9f]*"
_SEQUENCE = re.compile(
    f"(?:\x1b\\[|\x9b)(?P<values>[0-?]*)[ -/]*(?P<final>[@-~])|\x1b\\]{_STRING}(?:\x07|\x1b\\\\)|"
    f"\x1b[PX^_]{_STRING}\x1b\\\\|\x1b[ -/]*(?P<escape>[0-OQ-WYZ\\\\`-~])"
)
_UNFINISHED = re.compile(
    f"(?:\x1b(?:\\[[0-?]*[ -/]*|\\]{_STRING}\x1b?|[PX^_]{_STRING}\x1b?|[ -/]*)|\x9b[0-?]*[ -/]*)\\Z"
)
#: The final characters of CSI sequences that edit the line, of those that leave it, and of escapes that leave it.
_EDITS, _LEAVES_LINE, _ESCAPES_LINE = frozenset("CDGKPX@"), frozenset("ABEFHJLMSTdfru"), frozenset("DEMc78")
#: Whether a line, without carriage returns at its end, is overwritten: by one of them, a backspace, or a sequence that
#: edits the line.
_OVERWRITES = re.compile("\b|\r|(?:\x1b\\[|\x9b)[0-?]*[ -/]*[CDGKPX@]")
_TOKEN = re.compile(f"(?P<sequence>{_SEQUENCE.pattern})|(?P<control>[\x01-\x1f\x7f-\x9f])|[^\x01-\x1f\x7f-\x9f]+")


def displayed(text: str, *, ansi: bool) -> str:
    """Return text as a terminal would show it.

    Half a surrogate pair, which stands for a byte that is not UTF-8, becomes U+FFFD.

    Arguments:
        ansi: keep escape sequences; of an overwritten line, its colours and styles.
    """
    if _CONTROL.search(text) is not None:
        text = "\n".join([_shown_line(line, ansi=ansi) for line in text.split("\n")])
    return without_halves(text)


def is_plain(text: str) -> bool:
    """Whether `displayed` changes no more than halves of surrogate pairs."""
    return _CONTROL.search(text) is None


def unfinished(text: str) -> int:
    """Return how many characters at the end may be the beginning of a control sequence."""
    found = _UNFINISHED.search(text, max(0, len(text) - SEQUENCE_MAX))
    return 0 if found is None else len(text) - found.start()


def after_sequence(text: str, at: int) -> int:
    """Return `at`, or the end of the control sequence that a cut at `at` would cut in two."""
    for found in _SEQUENCE.finditer(text, max(0, at - SEQUENCE_MAX), at + SEQUENCE_MAX):
        if found.start() < at < found.end():
            return found.end()
    return at


def _shown_line(line: str, *, ansi: bool) -> str:
    if _CONTROL.search(line) is None:
        return line
    if _OVERWRITES.search(line.rstrip("\r")) is not None:
        return _Line(ansi=ansi).write(line)
    if not ansi:
        line = _SEQUENCE.sub("", line).replace("\x1b", "")
    else:
        line = _SEQUENCE.sub(lambda found: _with_st(found[0]), line)
    return _OTHER_CONTROL.sub("", line).replace("\0", NUL_SHOWN)


def _with_st(sequence: str) -> str:
    """A sequence in its form without control characters but ESC: CSI for C1's, and ST for BEL."""
    return sequence.replace("\x9b", "\x1b[").replace("\x07", "\x1b\\")


class _Line:
    """One line of a terminal: cells with a style each, and a cursor.

    A character that is wider than a cell (also a tab) leaves the cells after its first one empty.
    """

    def __init__(self, *, ansi: bool) -> None:
        self._ansi = ansi
        self._cells: list[str] = []
        self._styles: list[str] = []
        self._at = 0
        self._style = ""
        self._parts: list[str] = []
        self._shown_style = ""

    def write(self, line: str) -> str:
        """Return what is left of a line that overwrites itself, without blanks at its end: nobody sees them."""
        for token in _TOKEN.finditer(line):
            if token["sequence"] is not None:
                self._obey(token)
            elif token["control"] is not None:
                self._move(token["control"])
            else:
                self._put(token[0].replace("\0", NUL_SHOWN))
        self._flush()
        self._parts.append(_change(self._shown_style, self._style))
        return "".join(self._parts)

    def _move(self, control: str) -> None:
        if control == "\r":
            self._at = 0
        elif control == "\b":
            self._at = max(0, self._at - 1)
        elif control == "\t":
            width = _TAB - self._at % _TAB
            if self._at == len(self._cells):
                self._cells += ["\t"] + [""] * (width - 1)
                self._styles += [self._style] * width
            self._at += width

    def _put(self, text: str) -> None:
        if text.isascii():
            self._place(list(text))
            return
        for character in text:
            width = _width(character)
            if width:
                self._place([character] + [""] * (width - 1))
            elif 0 < self._at <= len(self._cells):
                self._cells[self._at - 1] += character

    def _place(self, cells: list[str]) -> None:
        start, end = self._at, self._at + len(cells)
        missing = start - len(self._cells)
        if missing > 0:
            self._cells += [" "] * missing
            self._styles += [""] * missing
        self._split(start)
        self._split(end)
        self._cells[start:end] = cells
        self._styles[start:end] = [self._style] * len(cells)
        self._at = end

    def _split(self, at: int) -> None:
        """Blank a wide character that a change at this cell cuts in two."""
        cells = self._cells
        if at >= len(cells) or cells[at]:
            return
        first = at
        while not cells[first]:
            first -= 1
        cells[first] = " "
        for rest in range(first + 1, len(cells)):
            if cells[rest]:
                break
            cells[rest] = " "

    def _obey(self, token: re.Match[str]) -> None:
        final, values = token["final"] or "", token["values"] or ""
        if final == "m":
            self._restyle(_with_st(token[0]), values)
        elif final in _EDITS:
            first = values.partition(";")[0][:4]
            self._edit(final, min(int(first), _COLUMNS_MAX) if first.isdecimal() else 0)
        elif final in _LEAVES_LINE or token["escape"] in _ESCAPES_LINE:
            self._flush()
            if self._ansi:
                self._parts.append(_with_st(token[0]))

    def _restyle(self, sequence: str, values: str) -> None:
        if not self._ansi:
            return
        joined = sequence if values.startswith("0") or not values else self._style + sequence
        self._style = joined if len(joined) <= _STYLE_MAX else sequence

    def _edit(self, final: str, value: int) -> None:
        count, at, is_short = max(1, value), self._at, len(self._cells) <= _COLUMNS_MAX
        if final == "C":
            self._at = min(at + count, max(at, _COLUMNS_MAX))
        elif final == "D":
            self._at = max(0, at - count)
        elif final == "G":
            self._at = count - 1
        elif final == "K" and value == 2:
            self._replace(0, len(self._cells), 0)
        elif final == "K" and value == 0:
            self._replace(at, len(self._cells), 0)
        elif final == "K" and at < _COLUMNS_MAX:
            self._replace(0, at + 1, at + 1)
        elif final == "X" and is_short:
            self._replace(at, at + count, count)
        elif final == "P" and is_short:
            self._replace(at, at + count, 0)
        elif final == "@" and is_short and len(self._cells) + count <= _COLUMNS_MAX:
            self._replace(at, at, count)

    def _replace(self, start: int, end: int, blanks: int) -> None:
        """Put blanks in the place of cells, as far as there are cells."""
        if start >= len(self._cells):
            return
        self._split(start)
        self._split(end)
        blanks = min(blanks, len(self._cells) - start) if end > start else blanks
        self._cells[start:end] = [" "] * blanks
        self._styles[start:end] = [""] * blanks

    def _flush(self) -> None:
        """Show the cells, and begin with an empty line."""
        end = len(self._cells)
        while end and self._cells[end - 1] == " " and not self._styles[end - 1]:
            end -= 1
        if self._ansi:
            for cell, style in zip(self._cells[:end], self._styles, strict=False):
                if style != self._shown_style:
                    self._parts.append(_change(self._shown_style, style))
                    self._shown_style = style
                self._parts.append(cell)
        else:
            self._parts += self._cells[:end]
        self._cells, self._styles = [], []


def _change(old: str, new: str) -> str:
    """Return the sequences that change one style to another."""
    if new.startswith(old):
        return new[len(old) :]
    return new if new.startswith(("\x1b[m", "\x1b[0")) else f"\x1b[0m{new}"


def _width(character: str) -> int:
    """Return how many cells a character takes."""
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1
