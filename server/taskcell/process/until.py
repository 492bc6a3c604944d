"""Wait until a process's output has a match of a regular expression."""

from __future__ import annotations

from dataclasses import dataclass

import anyio

from taskcell.errors import SandboxLost
from taskcell.process.kept_output import read_piece
from taskcell.process.output import whole_characters
from taskcell.process.pattern_search import PatternSearch
from taskcell.process.process import Process, Totals
from taskcell.process.terminal_text import displayed, unfinished
from taskcell.supervisor import protocol
from taskcell.supervisor.protocol import Stream

#: Characters before new output that are searched again with it: a match that spans lines may be as long.
OVERLAP = 16_384
#: Bytes of a line without an end that are searched again with what follows. A program can write to one line for hours.
LINE_MAX = 16_384
#: What stands in the searched text for the cut beginning of a line, so that `^` does not match there.
CUT = "…"
#: Characters of the line with a match that are shown.
LINE_SHOWN = 200
#: Seconds for the rest of a line whose last characters match so far, such as a prompt, or a number that may go on.
LINE_PAUSE = 0.1
#: Seconds between two looks at output that comes without a pause: it must not keep the server busy.
LOOK_PAUSE = 0.05
#: Seconds in which what is there already is searched, however short the wait is.
FIRST_LOOK = 10.0


@dataclass(frozen=True, slots=True)
class Match:
    """The line in which a match begins, and whether the match ends where a line has no end yet."""

    line: str
    is_open: bool


class _Text:
    """The text of one stream from a cursor on, as an answer shows it without control sequences."""

    def __init__(self, stream: Stream, cursor: int) -> None:
        self._stream = stream
        self.end = self.searched = cursor
        self._shown = ""
        self._rest = b""
        self._is_cut = False

    async def search(self, process: Process, pattern: PatternSearch) -> Match | None:
        """Search everything that there is by now and was not searched. Raises BadArgument, SandboxLost."""
        known = None
        while True:
            piece = await read_piece(process, self._stream, self.end, protocol.READ_MAX)
            if piece.lost:
                self._shown, self._rest, self._is_cut = "", b"", True
            self.end = piece.end
            known = piece.total if known is None else known
            is_last = piece.end >= known or not piece.data
            text, is_open = self._add(piece.data)
            found = await pattern.search(text) if text else None
            self.searched = self.end
            if found is not None:
                at_end = is_open and found[1] == len(text)
                if is_last or not at_end:  # else the rest of the line is there already, in the next piece
                    return Match(_line_at(text, found[0]), at_end)
            if is_last:
                return None

    def _add(self, data: bytes) -> tuple[str, bool]:
        """Take new bytes; return the text to search, and whether its last line has no end yet."""
        data = self._rest + data
        cut = data.rfind(b"\n") + 1
        first = CUT if self._is_cut else ""
        before = self._shown + (first + displayed(_decoded(data[:cut]), ansi=False) if cut else "")
        self._is_cut, self._rest = self._is_cut and not cut, data[cut:]
        begun = _decoded(whole_characters(self._rest))
        begun = displayed(begun[: len(begun) - unfinished(begun)], ansi=False)
        begun = CUT + begun if begun and self._is_cut else begun
        if len(self._rest) > LINE_MAX:
            self._is_cut, self._rest = True, self._rest[-LINE_MAX:]
        # From the beginning of a line, so that `^` means one.
        self._shown = before if len(before) <= OVERLAP else before[before.find("\n", len(before) - OVERLAP) + 1 :]
        return before + begun, bool(begun)


def _decoded(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _line_at(text: str, at: int) -> str:
    """Return the line at a place; of a long one, what is around that place."""
    start, end = text.rfind("\n", 0, at) + 1, text.find("\n", at)
    line = text[start : len(text) if end < 0 else end].strip()
    if len(line) <= LINE_SHOWN:
        return line
    room = LINE_SHOWN - 2 * len(CUT)
    first = max(0, min(at - start - room // 4, len(line) - room))
    last = first + room
    return f"{CUT if first else ''}{line[first:last]}{CUT if last < len(line) else ''}"


@dataclass(frozen=True, slots=True)
class Searched:
    """How a wait for a match ended.

    Arguments:
        line: the line in which the match begins; None without one.
        ends: the offset in each stream up to which was searched.
    """

    line: str | None
    ends: Totals


async def wait_for_match(process: Process, pattern: str, cursors: Totals, seconds: float) -> Searched:
    """Wait until the output from the cursors on has a match, the process has ended, or the time is over.

    What is there already is searched in any case, within FIRST_LOOK. Raises BadArgument if the pattern is broken or
    takes too long, EngineError and SandboxLost.
    """
    texts = [_Text(stream, cursor) for stream, cursor in zip(Stream, cursors, strict=True)]
    line: str | None = None
    async with PatternSearch("until", pattern) as search:
        began = anyio.current_time()
        with anyio.move_on_after(max(seconds, FIRST_LOOK)) as bound:
            while True:
                is_over, looked = process.has_ended, anyio.current_time()
                line = await _look(process, search, texts)
                if line is not None or is_over:
                    break
                bound.deadline = began + seconds
                # As long as the look took: a flood must not take all of the server's time.
                rested = 2 * anyio.current_time() - looked
                await process.news((texts[0].end, texts[1].end))
                await anyio.sleep_until(max(looked + LOOK_PAUSE, rested))
    return Searched(line, (texts[0].searched, texts[1].searched))


async def _look(process: Process, search: PatternSearch, texts: list[_Text]) -> str | None:
    """Search what is new in both streams. A match at the end of a line without end waits for what else comes."""
    try:
        for text in texts:
            is_whole = process.has_ended
            found = await text.search(process, search)
            if found is not None and found.is_open and not is_whole:
                await anyio.sleep(LINE_PAUSE)
                found = await text.search(process, search)
            if found is not None:
                return found.line
    except SandboxLost:
        if not process.has_ended:
            raise
    return None
