"""Make untrusted text fit for messages and listings."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

#: C0 but tab and newline, DEL, and C1.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_SYMBOLS = {code: 0x2400 + code for code in range(0x20)} | {0x7F: 0x2421} | dict.fromkeys(range(0x80, 0xA0), 0xFFFD)

#: Printable to Python, but shown as nothing: fillers, selectors of variants (in which a whole text can be hidden).
_UNSEEN = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff]")

#: Half of a surrogate pair, which is not a character: UTF-8, and so a line of JSON, cannot hold it.
LONE_SURROGATE = re.compile("[\ud800-\udfff]")
#: Letters of many scripts, and emoji of several parts, are joined and kept apart by these two.
_JOINERS = "\u200c\u200d"
#: Tags, and selectors of variants of ideographs: each shows as nothing, and a whole text can be written in them.
_TAGS = range(0xE0000, 0xE1000)


#: Characters of a path that a sentence shows: most are shorter, and the ends of longer ones tell them apart.
PATH_SHOWN = 200
#: Characters of a message of the engine, the kernel or the supervisor that a sentence shows.
MESSAGE_SHOWN = 500


def shown(text: str, most: int = 80) -> str:
    """Quote untrusted text for a sentence: one line, in which nothing is hidden and whose middle is left out if long.

    Arguments:
        most: characters of it that are shown.
    """
    if len(text) > most:
        text = f"{text[: most - most // 3]}...{text[-(most // 3) :]}"
    return plain_line(repr(text))


def plain_line(text: str) -> str:
    """Escape what would break the line, or what a reader does not see, as Python does: `\\n`, `\\x1b`, `\\u202e`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c if c.isprintable() and not _UNSEEN.match(c) else c.encode("unicode_escape", "surrogatepass").decode()
        for c in text
    )


def one_line(name: str | None) -> str:
    """Put a name on one line of a listing: quote it if it holds line breaks, or characters that a reader misses."""
    text = str(name)
    return text if plain_line(text) == text else shown(text, len(text))


def without_halves(text: str) -> str:
    """Return text with each unpaired surrogate replaced by U+FFFD."""
    return text if text.isascii() else LONE_SURROGATE.sub("\ufffd", text)


def is_visible(text: str) -> bool:
    """Whether text has no control character but tab and newline."""
    return _CONTROL.search(text) is None


def visible(text: str, *, but: str = "") -> str:
    """Show each control character but tab and newline by its symbol, such as U+241B for ESC; one of C1 as U+FFFD.

    Arguments:
        but: a character that stays as it is.
    """
    return _CONTROL.sub(lambda found: found[0] if found[0] == but else chr(_SYMBOLS[ord(found[0])]), text)


def ended(text: str) -> str:
    """Return the text with a line break at its end, unless it is empty."""
    return text if not text or text.endswith("\n") else text + "\n"


def remarks(first: str, notes: Iterable[str] = ()) -> str:
    """Return what taskcell says in an answer: one line on the call, and a line for each note."""
    return "\n".join(map(plain_line, [f"[{first}]", *(f"[note: {note}]" for note in notes)]))


def hidden_character(text: str) -> str | None:
    """The first character that a reader does not see, or that hides others, by its code and name; None: there is none.

    Controls but tab and line feed, marks of direction, and invisible ones (Unicode's categories Cc, Cf, Zl and Zp).
    """
    for character in text:
        if character in "\n\t" or character in _JOINERS:
            continue
        if unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp") or ord(character) in _TAGS:
            return f"U+{ord(character):04X} {unicodedata.name(character, 'control character')}"
    return None
