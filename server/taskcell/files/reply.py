"""Parses the reply of a `supervisor file` command; docs/protocol.md has the layout.

A reply comes from inside the sandbox. Parsing raises struct.error or IndexError where it breaks off; decoding never
raises, for names and text in a sandbox need not be UTF-8.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from datetime import UTC, datetime

from taskcell import text as texts
from taskcell.errors import FileRefused
from taskcell.files.answers import Edited, Entry, FileAnswer, FileBytes, FileText, FolderListing, Written, picture_type
from taskcell.files.limits import MAX_ENTRIES, MAX_PATH, MAX_PLACES
from taskcell.files.refusals import RefusalReason, Refused, sentence
from taskcell.model import Command
from taskcell.text import is_visible, visible

#: Characters of one line that are shown; a longer one is cut.
LINE_CHARS = 2000
#: Characters of an answer that are kept free for notes, those on the sandbox among them.
_NOTES_CHARS = 1000
#: Characters of a line's number at least.
NUMBER_WIDTH = 6
_UNKNOWN = (1 << 64) - 1
_DONE = 0
_LINE = struct.Struct("<IQ")
_KIND_BINARY, _KIND_WHOLE = 2, 3


class _Reply:
    """Reads values from the front of a reply."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self, form: str) -> int:
        """Take one number; `form` is in struct's letters."""
        (value,) = struct.unpack_from(f"<{form}", self._data, self._at)
        self._at += struct.calcsize(f"<{form}")
        return int(value)

    def numbers(self, form: struct.Struct) -> tuple[int, ...]:
        """Take some numbers at once."""
        values = form.unpack_from(self._data, self._at)
        self._at += form.size
        return values

    def take(self, size: int) -> bytes:
        piece = self._data[self._at : self._at + size]
        if len(piece) != size:
            raise IndexError("the reply breaks off")
        self._at += size
        return piece

    def text(self) -> str:
        """Take a name or a line, cut to the length that an honest reply keeps."""
        return self.take(self.number("I"))[:MAX_PATH].decode("utf-8", "replace")

    def rest(self) -> bytes:
        return self._data[self._at :]


def parse_reply(command: Command, data: bytes, output_chars: int) -> FileAnswer:
    """Parse a reply. Raises FileRefused, and struct.error or IndexError where the reply breaks off."""
    reply, path = _Reply(data), command.text
    what = command.argv[0]
    if reply.number("B") != _DONE:
        refused = _refused(reply)
        raise FileRefused(sentence(what, path, refused), code=refused.code)
    match what:
        case "read" | "fetch":
            return _read(reply, path, int(command.argv[1]), output_chars)
        case "write":
            return Written(path, int(command.argv[1]), bool(reply.number("B")))
        case "edit":
            size = reply.number("Q")
            lines = tuple(reply.number("I") for _ in range(_bounded(reply.number("I"), MAX_PLACES)))
            return Edited(path, int(command.argv[1]), lines, size)
        case _:
            return _listing(reply, path, output_chars)


def _bounded(count: int, most: int) -> int:
    """Return a count that an honest reply can have. Raises IndexError for a larger one."""
    if count > most:
        raise IndexError("the reply has too many elements")
    return count


def _refused(reply: _Reply) -> Refused:
    why, errno, number, words = reply.number("B"), reply.number("I"), reply.number("Q"), reply.text()
    count = _bounded(reply.number("I"), MAX_PLACES) if why == RefusalReason.PLACES else 0
    places = tuple((reply.number("I"), reply.text()) for _ in range(count))
    return Refused(why, errno, number, words, places)


# --- reading ----------------------------------------------------------------------------------------------------


def _read(reply: _Reply, path: str, first: int, output_chars: int) -> FileText | FileBytes:
    kind, size = reply.number("B"), reply.number("Q")
    if kind == _KIND_WHOLE:
        data = reply.rest()
        return FileBytes(path, data, picture_type(data))
    if kind == _KIND_BINARY:
        raise FileRefused(
            f"{texts.shown(path, texts.PATH_SHOWN)} is {size} bytes of binary data, not text; look at it in the "
            "terminal (`file`, `xxd`, `base64`)."
        )
    return _text(reply, path, first, size, output_chars)


def _text(reply: _Reply, path: str, first: int, size: int, output_chars: int) -> FileText:
    total = reply.number("Q")
    ends_whole, count = bool(reply.number("B")), reply.number("I")
    lines: list[str] = []
    cut: list[int] = []
    broken: list[int] = []
    hidden: list[int] = []
    used, room = 0, _room(output_chars)
    # The number, a tab and a line break.
    beside = max(NUMBER_WIDTH, len(str(first + count))) + 2
    # Each line uses at least one byte of the requested size.
    raw = list(_lines(reply, _bounded(count, output_chars)))
    is_crlf = _is_crlf(raw if ends_whole or total > first + count - 1 else raw[:-1])
    for number, (data, whole) in enumerate(raw, first):
        line = data.decode("utf-8", "replace")
        line = line.removesuffix("\r") if is_crlf else line
        shown = _line(line, len(data), whole, room - beside)
        used += len(shown) + beside
        if lines and used > room:
            break
        lines.append(visible(shown))
        if shown is not line:
            cut.append(number)
        if "\ufffd" in shown and b"\xef\xbf\xbd" not in data:
            broken.append(number)
        if not is_visible(shown):
            hidden.append(number)
    last = first + len(lines) - 1
    known = None if total == _UNKNOWN else total
    more = last < total
    text = "\n".join(lines) + ("\n" if lines and (ends_whole or more) else "")
    notes = [f"Too long, cut: line {_some(cut)}; `cut -c` in the terminal shows the rest."] if cut else []
    notes += [f"Not UTF-8, shown as U+FFFD: line {_some(broken)}; `edit_file` cannot match that."] if broken else []
    notes += [f"Control characters are shown as symbols, as ␛ for ESC: line {_some(hidden)}."] if hidden else []
    notes += ["The lines end in CRLF, which `edit_file` keeps."] if is_crlf else []
    return FileText(path, text, first, last, known, size, more, tuple(notes))


def _is_crlf(lines: list[tuple[bytes, int]]) -> bool:
    """Whether all of these lines, which end in LF, end in CRLF. Lines that were cut do not count."""
    ends = [data[-1:] for data, whole in lines if whole == len(data)]
    return bool(ends) and all(end == b"\r" for end in ends)


def _lines(reply: _Reply, count: int) -> Iterator[tuple[bytes, int]]:
    """Yield the kept bytes of each line, and the whole line's length in bytes."""
    for _ in range(count):
        kept, whole = reply.numbers(_LINE)
        yield reply.take(kept), whole


def _room(output_chars: int) -> int:
    """Return how many characters of an answer its lines may take."""
    return output_chars - min(output_chars // 4, _NOTES_CHARS)


def _line(line: str, kept: int, whole: int, room: int) -> str:
    if len(line) <= min(LINE_CHARS, room) and whole <= kept:
        return line
    most = min(LINE_CHARS, max(1, room - len(f"… [{whole:,} bytes more]")))
    shown = line[:most].removesuffix("\ufffd")  # of a character that was cut in two
    return f"{shown}… [{max(0, whole - len(shown.encode())):,} bytes more]"


def _some(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:5])) + (", …" if len(numbers) > 5 else "")


# --- listing ----------------------------------------------------------------------------------------------------


_TYPES = {"f": "file", "d": "folder", "l": "link"}


def _listing(reply: _Reply, path: str, output_chars: int) -> FolderListing:
    flags = reply.number("B")
    entries = [_entry(reply) for _ in range(_bounded(reply.number("I"), MAX_ENTRIES))]
    shown: list[Entry] = []
    used, room = 0, _room(output_chars)
    for entry in entries:
        used += len(entry.shown()) + 1
        if shown and used > room:
            break
        shown.append(entry)
    more = bool(flags & 1) or len(shown) < len(entries)
    notes = []
    if flags & 2:
        notes.append("Not everything was searched: there is too much, or it is too deep; name a folder in 'path'.")
    if flags & 4:
        notes.append("The sandbox's user may not read some of the folders; what is in them is not shown.")
    if any(entry.is_altered or "\ufffd" in entry.path for entry in shown):
        notes.append("Names with U+FFFD or a symbol such as ␛ have other bytes there; only the terminal can use them.")
    return FolderListing(path, tuple(shown), more or bool(flags & 2), tuple(notes))


def _entry(reply: _Reply) -> Entry:
    kind = _TYPES.get(chr(reply.number("B")), "other")
    size, modified = reply.number("Q"), reply.number("q")
    path, target = reply.text(), reply.text()
    return Entry(
        visible(path),
        kind,
        size if kind == "file" else None,
        _time(modified),
        visible(target) if kind == "link" else None,
        is_altered=not is_visible(path),
    )


def _time(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return "unknown"
