"""Make untrusted text fit for messages and listings."""

from __future__ import annotations

import unicodedata

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
