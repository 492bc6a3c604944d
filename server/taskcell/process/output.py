"""Bounded output: the head and the tail of what a process wrote, as text that a model can read.

Bytes arrive as pieces at offsets, with gaps. Decoding never raises: a byte that is not UTF-8 becomes U+FFFD.
"""

from __future__ import annotations

from dataclasses import dataclass

from taskcell.process.masks import Masks
from taskcell.process.terminal_text import SEQUENCE_MAX, after_sequence, displayed, is_plain, unfinished

#: UTF-8 needs at most this many bytes for a character (RFC 3629), so this many bytes a character are always enough.
BYTES_PER_CHAR = 4
#: stderr gets at least this share of a result's characters, if it needs them: it says why a skill failed.
STDERR_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Excerpt:
    """What is shown of a stream. `omitted_bytes` of it are not."""

    text: str
    omitted_bytes: int


class Capture:
    """Collects one stream's first `limit` characters, and later its last ones.

    Arguments:
        limit: characters that a result may hold at most.
        masks: what is masked in it.
    """

    def __init__(self, limit: int, masks: Masks | None = None) -> None:
        self.limit = limit
        self._masks = masks
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
        """The bytes that are held without a gap from the start, as they were written."""
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

    def render(self, total: int, limit: int, *, ansi: bool = False) -> Excerpt:
        """Return the stream's text, the line about what is left out included, in at most `limit` characters.

        Arguments:
            total: bytes that the process wrote; later ones are not shown.
            limit: characters; the line about what is left out may need more than a very small one.
            ansi: keep escape sequences.
        """
        head = _decode(self._masked(self._head[:total], is_begun=False))
        end = self._tail[: max(0, total - (self._tail_start or 0))]
        tail = "" if self._tail_start is None else _decode(_whole(self._masked(end, is_begun=True)))
        if self._tail_start is None and len(self._head) >= total:
            text = displayed(head, ansi=ansi)
            if len(text) <= limit:
                return Excerpt(text, 0)
        half = max(0, limit - len(_left_out(total)) - 1) // 2
        first = _fit_start(head, half, ansi=ansi)
        last = _fit_end(head[len(first.raw) :] if self._tail_start is None else tail, half, ansi=ansi)
        omitted = total - _size(first.raw) - _size(last.raw)
        if not omitted:
            return Excerpt(first.text + last.text, 0)
        start = "" if not first.text or first.text.endswith("\n") else "\n"
        return Excerpt(f"{first.text}{start}{_left_out(omitted)}{last.text}", omitted)

    def _masked(self, data: bytearray, *, is_begun: bool) -> bytearray:
        return bytearray(self._masks.masked(bytes(data), is_begun=is_begun)) if self._masks else data

    def whole(self, total: int) -> int:
        """Return `total` less the bytes before it that begin a character or a control sequence and do not end it."""
        held, start = (self._head, 0) if self._tail_start is None else (self._tail, self._tail_start)
        end = bytes(held[max(0, total - start - SEQUENCE_MAX) : max(0, total - start)])
        if self.end < total:
            return total
        text = _decode(whole_characters(end))
        return total - len(end) + _size(text[: len(text) - unfinished(text)])


def _left_out(omitted: int) -> str:
    return f"[… {omitted:,} bytes left out …]\n"


@dataclass(frozen=True, slots=True)
class _Fit:
    """A part of some output, as it was written and as it is shown."""

    raw: str
    text: str


def _fit_start(text: str, room: int, *, ansi: bool) -> _Fit:
    """Return the beginning of `text` that is shown in `room` characters: whole lines, where they fill half of it."""
    if is_plain(text):
        cut = _cut_head(text[:room])
        return _Fit(cut, displayed(cut, ansi=ansi))
    parts, used, at = [], 0, 0
    while at < len(text):
        end = text.find("\n", at) + 1 or len(text)
        line = displayed(text[at:end], ansi=ansi)
        if used + len(line) > room:
            break
        parts.append(line)
        used, at = used + len(line), end
    if at < len(text) and used <= room // 2:
        piece = text[at : min(end, at + room - used)]
        piece = piece[: len(piece) - unfinished(piece)] or piece[:1]
        while len(line := displayed(piece, ansi=ansi)) > room - used:
            piece = piece[: len(piece) // 2]
        parts.append(line)
        at += len(piece)
    return _Fit(text[:at], "".join(parts))


def _fit_end(text: str, room: int, *, ansi: bool) -> _Fit:
    """Return the end of `text` that is shown in `room` characters: whole lines, where they fill half of it."""
    if is_plain(text):
        cut = _cut_tail(text, max(0, len(text) - room))
        return _Fit(cut, displayed(cut, ansi=ansi))
    parts, used, at = [], 0, len(text)
    while at:
        start = text.rfind("\n", 0, at - 1) + 1
        line = displayed(text[start:at], ansi=ansi)
        if used + len(line) > room:
            break
        parts.append(line)
        used, at = used + len(line), start
    if at and used <= room // 2:
        piece = text[after_sequence(text, max(start, at - (room - used))) : at]
        while len(line := displayed(piece, ansi=ansi)) > room - used:
            piece = piece[(len(piece) + 1) // 2 :]
        parts.append(line)
        at -= len(piece)
    return _Fit(text[at:], "".join(reversed(parts)))


def _decode(data: bytes | bytearray) -> str:
    return data.decode("utf-8", "surrogateescape")


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogateescape"))


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


def share(
    stdout: Capture, stderr: Capture, totals: tuple[int, int], limit: int, *, ansi: bool = False
) -> tuple[Excerpt, Excerpt]:
    """Return both streams' texts in at most `limit` characters: stderr gets its share, and what the other one leaves.

    Arguments:
        totals: bytes that the process wrote to each.
        ansi: as in `Capture.render`.
    """
    err = stderr.render(totals[1], limit, ansi=ansi)
    out = stdout.render(totals[0], limit, ansi=ansi)
    if len(out.text) + len(err.text) <= limit:
        return out, err
    for_err = max(int(limit * STDERR_SHARE), limit - len(out.text))
    err = stderr.render(totals[1], for_err, ansi=ansi)
    return stdout.render(totals[0], max(0, limit - len(err.text)), ansi=ansi), err


@dataclass(frozen=True, slots=True)
class Page:
    """A piece of a stream as text, and the offset at which the next one begins."""

    text: str
    end: int


def page(data: bytes, offset: int, limit: int, *, is_last: bool, ansi: bool) -> Page:
    """Return as much of a stream's bytes from `offset` on as `limit` characters show, cut at a line's end if possible.

    A page shows what its own bytes leave on the screen: what a later one overwrites stays in this one.

    Arguments:
        is_last: nothing follows; else what may be the beginning of a character or of a control sequence is left for
            the next page.
        ansi: keep escape sequences.
    """
    text = _decode(data if is_last else whole_characters(data))
    if not is_last:
        text = text[: len(text) - unfinished(text)]
    fit = _fit_start(text, limit, ansi=ansi) if len(text) > limit else _Fit(text, displayed(text, ansi=ansi))
    if len(fit.text) > limit:
        fit = _fit_start(text, limit, ansi=ansi)
    return Page(fit.text, offset + _size(fit.raw))


def whole_characters(data: bytes) -> bytes:
    """Return them without the beginning of a character that may go on after them."""
    return data[: len(data) - _unfinished(data)]


def _unfinished(data: bytes) -> int:
    """Return how many bytes at the end are the beginning of a character of UTF-8."""
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 != 0x80:
            size = 4 if byte & 0xF8 == 0xF0 else 3 if byte & 0xF0 == 0xE0 else 2 if byte & 0xE0 == 0xC0 else 1
            return back if size > back else 0
    return 0
