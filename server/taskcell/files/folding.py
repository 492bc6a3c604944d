"""Folds away what people and models mix up: blanks, case, and characters that look alike."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator
from functools import lru_cache
from itertools import accumulate

#: Characters that are folded at once.
_PART = 256 * 1024
_BLANKS = re.compile(r"[^\S\n]+")
#: What stands for a quote, a dash or a minus, or an ellipsis.
_ALIKE = {
    **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u02bc\u00b4", "'"),
    **dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb", '"'),
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-"),
    "\u2026": "...",
    "\u00d7": "x",
    "\ufffd": "",
    # `read_file` shows control characters by these.
    **{chr(0x2400 + code): chr(code) for code in range(0x20)},
}


@lru_cache(maxsize=4096)
def folded_character(character: str) -> str:
    """Return what a character is compared by: empty for what is not seen."""
    if character.isascii():
        return "'" if character == "`" else "" if character != "\n" and character.isspace() else character.lower()
    if character in _ALIKE:
        return _ALIKE[character]
    parts = unicodedata.normalize("NFKD", character)
    kept = (part for part in parts if unicodedata.category(part) not in ("Cf", "Zs", "Zl", "Zp"))
    return "".join(kept).casefold()


def fold(text: str) -> str:
    """Return a text without blanks, in one case, with one character for those that look alike; lines stay lines."""
    odd = {ord(character): folded_character(character) for character in set(text) if not character.isascii()}
    text = text.translate({**odd, ord("`"): "'"}) if odd or "`" in text else text
    return _BLANKS.sub("", text).lower()


def _parts(text: str) -> Iterator[str]:
    """Yield whole lines of a text in parts: one call on all of a large text would hold up every other thread."""
    at = 0
    while (end := text.find("\n", at + _PART)) >= 0:
        yield text[at:end]
        at = end + 1
    yield text[at:]


class Folded:
    """A text that is searched by what its characters fold to."""

    def __init__(self, text: str) -> None:
        self.lines = text.split("\n")
        folded = [line for part in _parts(text) for line in fold(part).split("\n")]
        self._starts = [0, *accumulate(map(len, folded))]
        self._text = "".join(folded)

    def find(self, wanted: str) -> tuple[int, list[tuple[int, int]]]:
        """Return how often a folded text without line breaks is there, and the first place.

        The place is two positions, each a line (from 0) and a character of it: of the first character that is
        compared, and behind the last one.
        """
        at = self._text.find(wanted)
        if at < 0 or not wanted:
            return 0, []
        count = self._text.count(wanted)
        return count, [self._position(at), self._position(at + len(wanted) - 1, behind=True)]

    def _position(self, at: int, *, behind: bool = False) -> tuple[int, int]:
        line = bisect_right(self._starts, at) - 1
        left = at - self._starts[line]
        for column, character in enumerate(self.lines[line]):
            left -= len(folded_character(character))
            if left < 0:
                return line, column + behind
        return line, len(self.lines[line])
