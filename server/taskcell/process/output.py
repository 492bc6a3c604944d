"""Bounded output: the head and the tail of what a process wrote, as text that a model can read.

Bytes come in as pieces at offsets; gaps are allowed. Decoding never raises: a byte that is not UTF-8 becomes U+FFFD.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

#: UTF-8 needs at most this many bytes for a character (RFC 3629), so this many bytes a character are always enough.
BYTES_PER_CHAR = 4
#: stderr gets at least this share of a result's characters, if it needs them: it says why a skill failed.
STDERR_SHARE = 0.2
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Text:
    """What is shown of a stream. `omitted_bytes` of it are not."""

    text: str
    omitted_bytes: int


class Capture:
    """Collects one stream's first `limit` characters, and later its last ones.

    Arguments:
        limit: characters that a result may hold at most.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._head = bytearray()
        self._tail = bytearray()
        self._tail_start: int | None = None

    @property
    def head_bytes(self) -> int:
        """How many bytes from the stream's start are of use; the credit to begin with."""
        return max(1, self.limit * BYTES_PER_CHAR)

    @property
    def tail_bytes(self) -> int:
        """How many bytes before the stream's end are of use."""
        return max(1, self.limit // 2 * BYTES_PER_CHAR)

    @property
    def received(self) -> int:
        """Bytes held without a gap from the start."""
        return len(self._head)

    @property
    def held(self) -> bytes:
        """The bytes that are held without a gap from the start."""
        return bytes(self._head)

    @property
    def end(self) -> int:
        """Offset after the last byte held."""
        return len(self._head) if self._tail_start is None else self._tail_start + len(self._tail)

    def add(self, offset: int, data: bytes) -> None:
        """Take bytes that begin at `offset` of the stream; offsets never go back."""
        if self._tail_start is None and offset == len(self._head):
            self._head += data
            return
        if self._tail_start is None or offset != self.end:
            self._tail_start, self._tail = offset, bytearray()
        self._tail += data

    def render(self, total: int, limit: int | None = None, where: str = "") -> Text:
        """The stream's text in at most `limit` characters, beside the line that says what is left out.

        Arguments:
            total: bytes that the process wrote; later ones are not shown.
            limit: characters; None means the limit of the capture.
            where: the address at which the whole can be read; empty means that it cannot.
        """
        limit = self.limit if limit is None else limit
        head = _decode(self._head[:total])
        tail = "" if self._tail_start is None else _decode(_whole(self._tail[: max(0, total - self._tail_start)]))
        if self._tail_start is None and len(self._head) >= total:
            if len(head) <= limit:
                return Text(_readable(head), 0)
            tail = head
        half = limit // 2
        head = _cut_head(head[:half])
        tail = _cut_tail(tail, max(0, len(tail) - half))
        omitted = max(0, total - _size(head) - _size(tail))
        return Text(_readable(head) + _left_out(omitted, head, where) + _readable(tail), omitted)


def _decode(data: bytes | bytearray) -> str:
    return data.decode("utf-8", "surrogateescape")


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogateescape"))


def _readable(text: str) -> str:
    return _LONE_SURROGATE.sub("\ufffd", text)


def _whole(data: bytearray) -> bytearray:
    """Without the rest of a character that was cut in two at the front."""
    start = 0
    while start < min(3, len(data)) and data[start] & 0xC0 == 0x80:
        start += 1
    return data[start:]


def _cut_head(text: str) -> str:
    """At a line's end, where that keeps at least half."""
    at = text.rfind("\n") + 1
    return text[:at] if at > len(text) // 2 else text


def _cut_tail(text: str, start: int) -> str:
    """From `start`, or from the next line's beginning, where that keeps at least half."""
    if start and text[start - 1] != "\n":
        at = text.find("\n", start) + 1
        if 0 < at <= (start + len(text)) // 2:
            return text[at:]
    return text[start:]


def _left_out(omitted: int, head: str, where: str) -> str:
    start = "" if not head or head.endswith("\n") else "\n"
    return f"{start}[… {omitted:,} bytes left out{f'; the whole: {where}' if where else ''} …]\n"


def share(stdout: Capture, stderr: Capture, stdout_total: int, stderr_total: int, where: str = "") -> tuple[Text, Text]:
    """Both streams of a skill within one limit: stderr its share at least, stdout the rest, and the other way round."""
    limit = stdout.limit
    err = stderr.render(stderr_total, None, where)
    out = stdout.render(stdout_total, None, where)
    if len(out.text) + len(err.text) <= limit:
        return out, err
    for_err = max(int(limit * STDERR_SHARE), limit - len(out.text))
    err = stderr.render(stderr_total, for_err, where)
    return stdout.render(stdout_total, max(0, limit - min(len(err.text), for_err)), where), err


@dataclass(frozen=True, slots=True)
class Page:
    """A piece of a stream as text, and the offset at which the next one begins."""

    text: str
    end: int


def page(data: bytes, offset: int, limit: int, *, is_last: bool, plain: bool) -> Page:
    """As much of a stream's bytes from `offset` on as `limit` characters hold, cut at a character's and a line's end.

    Arguments:
        is_last: nothing follows; else what may be the beginning of a character is left for the next page.
        plain: without control sequences; what may be the beginning of one is left for the next page too.
    """
    if not is_last:
        data = data[: len(data) - _unfinished(data)]
    text = _decode(data)
    if len(text) > limit:
        text = _cut_head(text[:limit])
        is_last = False
    if plain and not is_last and (rest := _UNFINISHED_SEQUENCE.search(text, max(0, len(text) - SEQUENCE_MAX))):
        text = text[: rest.start()]
    end = offset + _size(text)
    return Page(_readable(stripped(text) if plain else text), end)


def whole_characters(data: bytes) -> bytes:
    """Without the beginning of a character that may go on after them."""
    return data[: len(data) - _unfinished(data)]


def _unfinished(data: bytes) -> int:
    """How many bytes at the end are the beginning of a character of UTF-8."""
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 != 0x80:
            size = 4 if byte & 0xF8 == 0xF0 else 3 if byte & 0xF0 == 0xE0 else 2 if byte & 0xE0 == 0xC0 else 1
            return back if size > back else 0
    return 0


#: Characters within which a control sequence ends; a longer one is shown as what it is.
SEQUENCE_MAX = 128
#: ECMA-48: CSI with its parameters, OSC to BEL or ST, the other strings to ST, and the escapes of two or three bytes.
_SEQUENCE = re.compile(
    "\x1b(?:\\[[0-?]*[ -/]*[@-~]|\\][^\x07\x1b]*(?:\x07|\x1b\\\\)|[PX^_][^\x1b]*\x1b\\\\|[ -/]*[0-OQ-WYZ\\\\`-~])"
)
_UNFINISHED_SEQUENCE = re.compile("\x1b(?:\\[[0-?]*[ -/]*|\\][^\x07\x1b]*\x1b?|[PX^_][^\x1b]*\x1b?|[ -/]*)\\Z")


def stripped(text: str) -> str:
    """What a terminal's output says, without colours, cursor movements and the carriage returns before line ends."""
    return _SEQUENCE.sub("", text).replace("\r\n", "\n")
