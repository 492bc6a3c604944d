"""Parses the reply of a `supervisor file` command; docs/protocol.md has the layout.

A reply comes from inside the sandbox. Parsing raises struct.error or IndexError where it breaks off; decoding never
raises, for names and text in a sandbox need not be UTF-8.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from taskcell.errors import FileRefused
from taskcell.files.limits import MAX_ENTRIES, MAX_PATH
from taskcell.files.refusals import RefusalReason, Refused, sentence

_UNKNOWN = (1 << 64) - 1
_DONE = 0
_LINE = struct.Struct("<IQ")
#: Bytes of a device, an inode and a time of birth.
_FILE_ID = 24
_KIND_WINDOW, _KIND_SAMPLE, _KIND_WHOLE = 1, 2, 3
#: Bytes of a sample in an honest reply, and lines of a window: each takes one byte of an answer at least.
_MAX_SAMPLE, _MAX_LINES = 8192, 10_000_000


class Placed(IntEnum):
    """Why a file was written in place, and not replaced as a whole."""

    NOT = 0
    LINKS = 1
    OWNER = 2
    FOLDER = 3
    MOUNT = 4
    OPEN = 5


@dataclass(frozen=True, slots=True)
class Where:
    """Which file it was, whatever name led to it.

    Arguments:
        path: its real path, without links; empty where the sandbox does not know.
        file: what identifies it, under all its names, for as long as it is there; empty likewise.
    """

    path: str = ""
    file: bytes = b""

    def is_that(self, other: Where) -> bool:
        """Whether it is the file of that path, or that file under another name."""
        return self.path == other.path or (bool(self.file) and self.file == other.file)


@dataclass(frozen=True, slots=True)
class Whole:
    """All bytes of a file."""

    where: Where
    data: bytes


@dataclass(frozen=True, slots=True)
class Sample:
    """The front of a file that is not read by lines, and the file's size in bytes."""

    where: Where
    size: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Window:
    """Some lines of a large file.

    Arguments:
        size: of the file, in bytes.
        sample: the front of the file.
        first: number of the first line, from 1.
        total: lines of the file; None: not counted.
        crlf: lines that end in CRLF, of those that were looked at.
        crc: checksum of the file, if the lines were counted.
        ends_whole: the last line that was looked at ends with LF.
        lines: the kept bytes of each line, without its LF, and the length of the whole line.
    """

    where: Where
    size: int
    sample: bytes
    first: int
    total: int | None
    crlf: int
    crc: int
    ends_whole: bool
    lines: tuple[tuple[bytes, int], ...]


@dataclass(frozen=True, slots=True)
class Stored:
    """What a write did. `mode` and `size` (bytes) are those of the file afterwards, `mode_before` is the old one's."""

    where: Where
    existed: bool
    placed: Placed
    mode: int
    mode_before: int
    size: int


@dataclass(frozen=True, slots=True)
class ListedEntry:
    """One entry of a listing; `kind` is f, d, l or o, and `changed` in seconds since 1970."""

    kind: str
    size: int
    changed: int
    path: str
    target: str


@dataclass(frozen=True, slots=True)
class Listed:
    """A page of a listing.

    Arguments:
        found: entries that match, on all pages.
        left_out: names of entries that match and are usually not wanted; `left_count` says how many there are.
    """

    flags: int
    found: int
    left_count: int
    left_out: tuple[str, ...]
    entries: tuple[ListedEntry, ...]


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

    def count(self, form: str, most: int) -> int:
        """Take a count that an honest reply can have. Raises IndexError for a larger one."""
        value = self.number(form)
        if value > most:
            raise IndexError("the reply has too many elements")
        return value

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

    def piece(self, most: int) -> bytes:
        """Take bytes with their length in front, cut to the length that an honest reply keeps."""
        return self.take(self.number("I"))[:most]

    def text(self) -> str:
        """Take a name or a line."""
        return self.piece(MAX_PATH).decode("utf-8", "replace")

    def rest(self) -> bytes:
        return self._data[self._at :]


def _opened(what: str, path: str, data: bytes) -> _Reply:
    """Return what follows the reply's first byte. Raises FileRefused if the command refused."""
    reply = _Reply(data)
    if reply.number("B") == _DONE:
        return reply
    refused = Refused(reply.number("B"), reply.number("I"), reply.number("Q"), reply.text())
    is_changed = refused.why == RefusalReason.CHANGED
    raise FileRefused(sentence(what, path, refused), code=refused.code, changed=is_changed)


def parse_read(what: str, path: str, data: bytes) -> Whole | Sample | Window:
    """Parse the reply of `read` or `fetch`. Raises FileRefused."""
    reply = _opened(what, path, data)
    kind, where, size = reply.number("B"), _where(reply), reply.number("Q")
    if kind == _KIND_WHOLE:
        return Whole(where, reply.rest())
    sample = reply.piece(_MAX_SAMPLE)
    if kind != _KIND_WINDOW:
        return Sample(where, size, sample)
    first, total, crlf, crc = reply.number("Q"), reply.number("Q"), reply.number("Q"), reply.number("I")
    ends_whole = bool(reply.number("B"))
    lines = tuple(_lines(reply, reply.count("I", _MAX_LINES)))
    known = None if total == _UNKNOWN else total
    return Window(where, size, sample, first, known, crlf, crc, ends_whole, lines)


def _where(reply: _Reply) -> Where:
    path, file = reply.text(), reply.take(_FILE_ID)
    return Where(path, file if any(file) else b"")


def _lines(reply: _Reply, count: int) -> Iterator[tuple[bytes, int]]:
    for _ in range(count):
        kept, whole = reply.numbers(_LINE)
        yield reply.take(kept), whole


def parse_write(path: str, data: bytes) -> Stored:
    """Parse the reply of `write`. Raises FileRefused."""
    reply = _opened("write", path, data)
    where, existed, placed = _where(reply), bool(reply.number("B")), Placed(reply.count("B", max(Placed)))
    mode, before = reply.number("I") & 0o7777, reply.number("I") & 0o7777
    return Stored(where, existed, placed, mode, before, reply.number("Q"))


def parse_list(path: str, data: bytes) -> Listed:
    """Parse the reply of `list`. Raises FileRefused."""
    reply = _opened("list", path, data)
    flags, found, left_count = reply.number("B"), reply.number("Q"), reply.number("I")
    left = reply.text().rstrip("\0")
    entries = tuple(_entry(reply) for _ in range(reply.count("I", MAX_ENTRIES)))
    return Listed(flags, found, left_count, tuple(left.split("\0")) if left else (), entries)


def _entry(reply: _Reply) -> ListedEntry:
    kind = chr(reply.number("B"))
    size, changed = reply.number("Q"), reply.number("q")
    return ListedEntry(kind, size, changed, reply.text(), reply.text())
