"""Finds the places of a text that come nearest to one that is not in it.

The work is bounded: words are looked up a bounded number of times, and only a few places are compared by letters.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import accumulate

from taskcell.files.folding import fold

#: Places that are returned.
_NEAREST = 3
#: Times that a word is looked up, words that are looked up, and places that are compared.
_HITS, _WORDS, _COMPARED = 400, 60, 12
#: Characters of a line that are compared, which takes a time that grows with their square; lines that are, and lines
#: that the file may have between those of `old`.
_COMPARED_CHARS, _LINES_COMPARED, _LINES_MORE = 300, 12, 5
#: Characters of a line that are folded for it, and lines.
_FOLDED_CHARS, _LINES_FOLDED = 1200, 400
#: Characters within which words speak for the same place.
_BUCKET = 32
#: The likeness (0 to 1) from which a place is worth showing.
_SHOWN = 0.35

_WORD = re.compile(r"[^\W_]{2,}")


@dataclass(frozen=True, slots=True)
class Near:
    """A place of some lines from `line` (from 0), and how like it is (0 to 1)."""

    line: int
    likeness: float
    text: str


def nearest_places(text: str, lines: list[str], old: str) -> list[Near]:
    """Return the likest places, best first; they do not overlap."""
    wanted = old.strip("\n").split("\n")
    lowered = text.lower()
    lowered = lowered if len(lowered) == len(text) else text
    if len(wanted) == 1:
        compared = [_of_one_line(text, at, wanted[0]) for at in _spots(lowered, wanted[0])]
    else:
        votes = _votes(lowered, wanted).most_common(_COMPARED)
        compared = [_of_lines(lines, min(max(0, start), len(lines) - 1), wanted) for start, _ in votes]
    kept: list[Near] = []
    for place in sorted(compared, key=lambda place: -place.likeness):
        if place.likeness >= _SHOWN and all(abs(place.line - other.line) >= len(wanted) for other in kept):
            kept.append(place)
    return kept[:_NEAREST]


def _spots(text: str, old: str) -> list[int]:
    """Return where words of a line stand in the text as they do in the line, the likeliest places first."""
    line = old.lower()[:_COMPARED_CHARS]
    words = {word for word in _WORD.findall(line) if len(word) > 2}
    # A wrong letter spoils a word, but not both of its ends.
    words |= {part for word in words if len(word) > 4 for part in (word[: len(word) * 2 // 3], word[len(word) // 3 :])}
    if len(words) < 4:
        words |= {line[at : at + 3] for at in range(max(1, len(line[:80]) - 2))}
    votes: Counter[int] = Counter()
    first: dict[int, int] = {}
    for word in sorted(words - {""}, key=lambda word: (-len(word), word))[:_WORDS]:
        hits = _hits(text, word)
        for hit in hits:
            bucket = (hit - line.find(word)) // _BUCKET
            votes[bucket] += len(word) / len(hits)  # type: ignore[assignment]
            first.setdefault(bucket, hit)
    return [first[bucket] for bucket, _ in votes.most_common(_COMPARED)]


def _of_one_line(text: str, at: int, old: str) -> Near:
    """Compare a line with the part of a line of the file around a place."""
    room = len(old) + 4 * _BUCKET
    begin = max(text.rfind("\n", 0, at) + 1, at - room)
    end = text.find("\n", at)
    part = _inner(text[begin : min(end if end >= 0 else len(text), at + room)], old)
    return Near(text.count("\n", 0, at), _likeness(part, old), part)


def _of_lines(lines: list[str], line: int, wanted: list[str]) -> Near:
    """Compare some lines with those at a place, one by one, or with lines between them that one side lacks."""
    whole, there = len(wanted), lines[line : line + len(wanted) + _LINES_MORE]
    wanted = wanted[:_LINES_FOLDED]
    folded = [fold(each[:_FOLDED_CHARS]) for each in wanted]
    theirs = [fold(each[:_FOLDED_CHARS]) for each in there[: len(wanted) + _LINES_MORE]]
    different = [pair for pair in zip(folded, theirs, strict=False) if pair[0] != pair[1]]
    some = different[:_LINES_COMPARED]
    rate = sum(_likeness(*pair) for pair in some) / max(1, len(some))
    equal = min(len(folded), len(theirs)) - len(different)
    in_step = (equal + rate * len(different)) / len(wanted)
    blocks = SequenceMatcher(None, theirs, folded, autojunk=False).get_matching_blocks()
    matched = sum(block.size for block in blocks) / len(wanted)
    if matched <= in_step or len(blocks) < 2:
        return Near(line, in_step, "\n".join(there[:whole]))
    first, last = blocks[0], blocks[-2]
    begin, end = max(0, first.a - first.b), last.a + whole - last.b
    return Near(line + begin, matched, "\n".join(there[begin:end]))


def _likeness(one: str, other: str) -> float:
    one, other = fold(one[:_FOLDED_CHARS])[:_COMPARED_CHARS], fold(other[:_FOLDED_CHARS])[:_COMPARED_CHARS]
    matcher = SequenceMatcher(None, one, other, autojunk=False)
    return matcher.ratio() if matcher.quick_ratio() > _SHOWN else 0.0


def _inner(line: str, old: str) -> str:
    """Return the part of a line that is most like an `old` that is shorter, from a word's start to a word's end."""
    whole = line if old[:1].isspace() else line.lstrip()
    matcher = SequenceMatcher(None, line[: 4 * _COMPARED_CHARS], old[:_COMPARED_CHARS], autojunk=False)
    blocks = [block for block in matcher.get_matching_blocks() if block.size > 2]
    if not blocks or len(old) >= len(line.strip()):
        return whole
    begin = max(0, blocks[0].a - blocks[0].b)
    end = min(len(line), blocks[-1].a + len(old) - blocks[-1].b)
    while begin and _is_word(line[begin - 1 : begin + 1]):
        begin -= 1
    while end < len(line) and _is_word(line[end - 1 : end + 1]):
        end += 1
    return line[begin:end]


def _is_word(pair: str) -> bool:
    return pair.replace("_", "a").isalnum()


def _votes(text: str, wanted: list[str]) -> Counter[int]:
    """Count, for each line that `old` may begin at, the words of `old` that speak for it; rare words count more."""
    starts = [0, *accumulate(len(line) + 1 for line in text.split("\n"))]
    votes: Counter[int] = Counter()
    words = {word.lower(): at for at, line in enumerate(wanted) for word in _WORD.findall(line[:_COMPARED_CHARS])}
    if not words:
        words = {line.strip().lower(): at for at, line in enumerate(wanted) if line.strip()}
    for word, line in sorted(words.items(), key=lambda item: -len(item[0]))[:_WORDS]:
        hits = _hits(text, word)
        for hit in hits:
            votes[bisect_right(starts, hit) - 1 - line] += len(word) / len(hits)  # type: ignore[assignment]
    return votes


def _hits(text: str, word: str) -> list[int]:
    found: list[int] = []
    at = text.find(word)
    while at >= 0 and len(found) < _HITS:
        found.append(at)
        at = text.find(word, at + len(word))
    return found
