"""Applies the edits of one call to a text: all of them, or none."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from taskcell.errors import FileRefused
from taskcell.files.diagnosis import diagnose
from taskcell.files.limits import MAX_PLACES
from taskcell.files.text_file import TextFile, unified
from taskcell.text import shown

#: Places of `old` that are counted; more are not looked for.
MOST_PLACES = 1_000_000
#: Characters of a line that show where `old` is.
_PLACE_CHARS = 160


@dataclass(frozen=True, slots=True)
class Edit:
    """One edit: `new` in the place of each of `count` places of `old`, or, if `old` is None, after a line.

    Arguments:
        after_line: of the file as it was before the call; 0 is its beginning, and -1 its end.
    """

    old: str | None
    new: str
    count: int = 1
    after_line: int = 0


@dataclass(frozen=True, slots=True)
class _Done:
    """What an edit did: `size` characters at each start became `new_size`."""

    starts: Sequence[int]
    size: int
    new_size: int

    def moved(self, at: int) -> int:
        """Return where a place of the text before the edit is after it."""
        before = bisect_right(self.starts, at)
        if before and self.size and self.starts[before - 1] == at:
            before -= 1
        elif before and self.starts[before - 1] + self.size > at:
            return self.moved(self.starts[before - 1] + self.size)
        return at + before * (self.new_size - self.size)


@dataclass(frozen=True, slots=True)
class Applied:
    """The edits that were made: how many places changed, and where the first ones are now, as (start, end)."""

    count: int
    spans: tuple[tuple[int, int], ...]


def apply_edits(path: str, file: TextFile, edits: Sequence[Edit]) -> Applied:
    """Change the text by each edit in turn, each on the result of those before it.

    Raises FileRefused if one of them does not fit; the text is of no use then. `path` is for the sentence.
    """
    original, done = file.text, list[_Done]()
    for number, edit in enumerate(edits, 1):
        which = f"Edit {number} of {len(edits)}: " if len(edits) > 1 else ""
        if edit.old is None:
            at = _insertion(f"{which}{path}", original, edit.after_line)
            for each in done:
                at = each.moved(at)
            made = _insert(file, at, unified(edit.new))
        else:
            _check_untouched(f"{which}'old'", path, file.text, original, unified(edit.old))
            made = _replace(path, which, file, unified(edit.old), edit)
        done.append(made)
    return Applied(sum(len(made.starts) for made in done), tuple(_spans(done)))


def _check_untouched(who: str, path: str, text: str, original: str, old: str) -> None:
    """Raise FileRefused if the edits so far changed a place that this one means."""
    if text is not original and old not in text and old in original:
        raise FileRefused(
            f"{who} was in {path}, and an edit before it in this call changes that text; nothing was changed. Make one "
            "edit of both, or give 'old' as the edits before it leave it."
        )


def _replace(path: str, which: str, file: TextFile, old: str, edit: Edit) -> _Done:
    starts, overlap = _find(file.text, old)
    if not starts:
        said, _, excerpt = diagnose(path, file.text, old, unified(edit.new)).partition("\n")
        raise FileRefused(which + said, excerpt=excerpt)
    if len(starts) != edit.count:
        raise FileRefused(which + _other_count(path, file.text, starts))
    if overlap:
        raise FileRefused(f"{which}The {len(starts)} places of 'old' in {path} overlap; replace one at a time.")
    new = unified(edit.new)
    file.replace(starts, len(old), new)
    return _Done(starts, len(old), len(new))


def _find(text: str, old: str) -> tuple[list[int], bool]:
    """Return where `old` begins, and whether places overlap: each of them could be meant, so each counts."""
    starts: list[int] = []
    at, overlap = text.find(old), False
    while at >= 0 and len(starts) <= MOST_PLACES:
        overlap = overlap or bool(starts and at - starts[-1] < len(old))
        starts.append(at)
        at = text.find(old, at + 1)
    return starts, overlap


def _other_count(path: str, text: str, starts: Sequence[int]) -> str:
    found, line, at = [], 1, 0
    for start in starts[:MAX_PLACES]:
        line, at = line + text.count("\n", at, start), start
        begin = text.rfind("\n", 0, start) + 1
        words = text[begin : begin + _PLACE_CHARS].partition("\n")[0].strip()
        found.append(f"line {line}: {shown(words, _PLACE_CHARS)}")
    count = len(starts)
    more = f"; and {count - len(found)} more" if count > len(found) else ""
    times = "once" if count == 1 else f"{count} times"
    return (
        f"'old' is in {path} {times}; nothing was changed. Give more of the lines around the place that you mean, or "
        f"count={count} to replace all: {'; '.join(found)}{more}."
    )


def _insertion(who: str, original: str, after_line: int) -> int:
    """Return where the text before the call has the line that something is inserted after."""
    lines = original.count("\n") + (not original.endswith("\n") and bool(original))
    if after_line > lines:
        raise FileRefused(
            f"{who} has only {lines} line{'' if lines == 1 else 's'}, and 'after_line' is {after_line}; nothing was "
            "changed."
        )
    return _line_start(original, lines if after_line < 0 else after_line)


def _insert(file: TextFile, at: int, new: str) -> _Done:
    if at == len(file.text) and file.text and not file.text.endswith("\n"):
        new = "\n" + new
    elif not new.endswith("\n"):
        new += "\n"
    file.replace([at], 0, new)
    return _Done([at], 0, len(new))


def _line_start(text: str, after: int) -> int:
    at = 0
    for _ in range(after):
        at = text.find("\n", at) + 1 or len(text)
    return at


def _spans(done: Sequence[_Done]) -> list[tuple[int, int]]:
    """Return where the first places of each edit are in the text after all of them, in order."""
    spans = []
    for index, made in enumerate(done):
        grown = made.new_size - made.size
        shifts = accumulate([0, *(grown for _ in made.starts[: MAX_PLACES - 1])])
        for start, shift in zip(made.starts[:MAX_PLACES], shifts, strict=False):
            begin, end = start + shift, start + shift + made.new_size
            for later in done[index + 1 :]:
                begin, end = later.moved(begin), later.moved(end)
            spans.append((begin, max(begin, end)))
    return sorted(spans)
