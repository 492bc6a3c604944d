"""Reads the kept output of a process: its head and tail, a page, or plain bytes."""

from __future__ import annotations

from dataclasses import dataclass

from taskcell.errors import BadArgument
from taskcell.process.output import BYTES_PER_CHAR, STDERR_SHARE, Capture, Excerpt, Page, page, share
from taskcell.process.process import Process, Totals
from taskcell.supervisor import protocol
from taskcell.supervisor.protocol import Stream


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of one stream that begin at `offset`.

    Arguments:
        total: bytes that the process has written.
        lost: requested bytes before `offset` that are no longer kept.
    """

    data: bytes
    offset: int
    total: int
    lost: int

    @property
    def end(self) -> int:
        return self.offset + len(self.data)


@dataclass(frozen=True, slots=True)
class Reading:
    """Both streams' output for an answer, with the cursors at which each goes on.

    Arguments:
        lost_bytes: requested bytes that are no longer kept.
        more_bytes: bytes after the cursors that are there already.
    """

    texts: tuple[Excerpt, Excerpt]
    cursors: Totals
    lost_bytes: int
    more_bytes: int


async def read_piece(process: Process, stream: Stream, cursor: int, size: int) -> Piece:
    """Read at most `size` kept bytes from `cursor` on. Raises SandboxLost."""
    data, start, total = bytearray(), cursor, cursor
    while len(data) < size:
        found = await process.read(stream, start + len(data), min(protocol.READ_MAX, size - len(data)))
        if found.stream is None:  # the supervisor has forgotten it: nothing of it is kept
            written = process.written[stream - 1]
            return Piece(b"", max(cursor, written), written, max(0, written - cursor))
        total = found.total
        if found.offset > start + len(data):
            if data:  # the following bytes were lost meanwhile: the next piece reports that
                break
            start = found.offset
        if not found.data or found.offset < start:
            break
        data += found.data
    return Piece(bytes(data), start, total, max(0, start - cursor))


async def measure(process: Process) -> Totals:
    """Ask how many bytes each stream has by now. Raises SandboxLost."""
    out, err = [(await process.read(stream, protocol.FROM_THE_END, 0)).total for stream in Stream]
    return out, err


async def read_overview(process: Process, chars: int, *, ansi: bool) -> Reading:
    """Read head and tail of all output so far, as the call's own answer would show it. Raises SandboxLost.

    Arguments:
        chars: characters for both streams.
        ansi: keep escape sequences.
    """
    captures, totals, lost = [], [], 0
    for stream in Stream:
        capture = Capture(chars)
        head = await read_piece(process, stream, 0, capture.head_bytes)
        capture.add(head.offset, head.data)
        total, last = max(head.total, head.end), head
        if head.end < total:
            last = await read_piece(process, stream, max(head.end, total - capture.tail_bytes), capture.tail_bytes)
            capture.add(last.offset, last.data)
        captures.append(capture)
        # What is begun belongs to the next answer.
        totals.append(last.end if process.exit is not None else capture.whole(last.end))
        lost += head.lost
    texts = share(captures[0], captures[1], (totals[0], totals[1]), chars, ansi=ansi)
    return Reading(texts, (totals[0], totals[1]), lost, 0)


def check_cursors(cursors: Totals, totals: Totals) -> None:
    """Raise BadArgument if a cursor is past the end of its stream."""
    if cursors[0] > totals[0] or cursors[1] > totals[1]:
        written = f"{totals[0]} bytes" + (f" and {totals[1]} of standard error" if totals[1] or cursors[1] else "")
        raise BadArgument(f"The cursor is past the end: the process has written {written} so far.")


async def read_page(process: Process, cursors: Totals, chars: int, *, ansi: bool) -> Reading:
    """Read the output from the cursors on, both streams within `chars` characters. Raises BadArgument, SandboxLost."""
    out = await read_piece(process, Stream.STDOUT, cursors[0], chars * BYTES_PER_CHAR)
    err = await read_piece(process, Stream.STDERR, cursors[1], chars * BYTES_PER_CHAR)
    check_cursors(cursors, (out.total, err.total))
    over = process.has_ended
    shown_out, shown_err = _page(out, chars, over, ansi), _page(err, chars, over, ansi)
    if len(shown_out.text) + len(shown_err.text) > chars:
        for_err = max(int(chars * STDERR_SHARE), chars - len(shown_out.text))
        shown_err = _page(err, for_err, over, ansi)
        shown_out = _page(out, max(1, chars - min(len(shown_err.text), for_err)), over, ansi)
    ends = (shown_out.end, shown_err.end)
    more = max(0, out.total - ends[0]) + max(0, err.total - ends[1])
    return Reading((Excerpt(shown_out.text, 0), Excerpt(shown_err.text, 0)), ends, out.lost + err.lost, more)


def _page(piece: Piece, chars: int, over: bool, ansi: bool) -> Page:
    return page(piece.data, piece.offset, chars, is_last=over and piece.end >= piece.total, ansi=ansi)
