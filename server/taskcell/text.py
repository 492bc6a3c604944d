"""Make untrusted text fit for messages and listings."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

#: C0 but tab and newline, DEL, and C1.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_SYMBOLS = {code: 0x2400 + code for code in range(0x20)} | {0x7F: 0x2421} | dict.fromkeys(range(0x80, 0xA0), 0xFFFD)

#: Letters of many scripts, and emoji of several parts, are joined and kept apart by these two.
_JOINERS = "\u200c\u200d"
#: Tags, and selectors of variants of ideographs: each shows as nothing, and a whole text can be written in them.
_TAGS = range(0xE0000, 0xE1000)


def shown(text: str) -> str:
    """Quote, escape and shorten untrusted text for a message."""
    limit = 80
    return ascii(text if len(text) <= limit else text[:limit] + "...")


def one_line(name: str | None) -> str:
    """Put a name on one line: quote it if it holds line breaks or control characters."""
    return repr(name) if name is not None and not name.isprintable() else str(name)


def is_visible(text: str) -> bool:
    """Whether text has no control character but tab and newline."""
    return _CONTROL.search(text) is None


def visible(text: str) -> str:
    """Show each control character but tab and newline by its symbol, such as U+241B for ESC; one of C1 as U+FFFD."""
    return _CONTROL.sub(lambda found: chr(_SYMBOLS[ord(found[0])]), text)


def ended(text: str) -> str:
    """Return the text with a line break at its end, unless it is empty."""
    return text if not text or text.endswith("\n") else text + "\n"


def remarks(first: str, notes: Iterable[str] = ()) -> str:
    """Return what taskcell says in an answer: one line on the call, and a line for each note."""
    return "\n".join([f"[{first}]", *(f"[note: {note}]" for note in notes)])


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
