"""Guesses which of the encodings before Unicode a text has, by the letters that each would make of its bytes.

Every candidate that can decode the text is scored: the share of its characters beyond ASCII that are frequent in a
language of that encoding. The library charset-normalizer takes KOI8-R for Windows-1251 and Latin-1 for Windows-1250 in
texts of a few lines, which is what sources and configuration files are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

#: Bytes of a text that are looked at: more do not change the score.
SAMPLE = 32 * 1024
#: The frequent letters of a language's text; its others count half.
_QUOTES = "\u201c\u201d\u2018\u2019\u201e\u2013\u2014"
_WESTERN = frozenset("äöüßÄÖÜéèêàçáíóúñâîôëïœæåøÉÀ…€«»°§©·²³µ£¿¡ãõ" + _QUOTES)
_CENTRAL = frozenset("ąćęłńóśźżáčďéěíňřšťúůýžőűöüăâîşţßľĺôŠŽČŘ" + _QUOTES)
_CYRILLIC = frozenset("оеаинтсрвлкмдпуяыьгзбчй")
_GREEK = frozenset("αοιετσνηρυπκςάόίέήύώλμδ")


def _of_letters(frequent: frozenset[str], first: str, last: str) -> Callable[[str, bytes], float]:
    """Score letters of a script: a wrong encoding often swaps upper and lower case, so capitals count little."""

    def score(character: str, _: bytes) -> float:
        if character in frequent:
            return 1.0
        if not first <= character <= last:
            return 0.0
        return 0.6 if character.islower() or not character.isupper() else 0.2

    return score


def _of_rows(first: int, last: int, kana: bool = False) -> Callable[[str, bytes], float]:
    """Score ideographs: those that the standard has in its first rows, by the first byte, are the frequent ones."""

    def score(character: str, data: bytes) -> float:
        if kana and "\u3041" <= character <= "\u30fe":
            return 1.0
        if "\u3000" <= character <= "\u3011" or "\uff01" <= character <= "\uff5e":
            return 0.9
        if "\uac00" <= character <= "\ud7a3":
            return 0.95
        if "\u4e00" <= character <= "\u9fff":
            return 0.9 if first <= data[0] <= last else 0.3
        return 0.0

    return score


#: In the order that decides between equals: rows of GB 2312, Big5, JIS X 0208 and KS X 1001.
_SCORES: dict[str, Callable[[str, bytes], float]] = {
    "cp1252": _of_letters(_WESTERN, "\u00c0", "\u00ff"),
    "gb18030": _of_rows(0xB0, 0xD7),
    "cp932": _of_rows(0x88, 0x97, kana=True),
    "euc_jp": _of_rows(0xB0, 0xCF, kana=True),
    "big5": _of_rows(0xA4, 0xC6),
    "euc_kr": _of_rows(0xB0, 0xC8),
    "cp1251": _of_letters(_CYRILLIC, "\u0400", "\u045f"),
    "koi8_r": _of_letters(_CYRILLIC, "\u0400", "\u045f"),
    "cp866": _of_letters(_CYRILLIC, "\u0400", "\u045f"),
    "cp1253": _of_letters(_GREEK, "\u0384", "\u03ce"),
    "cp1250": _of_letters(_CENTRAL, "\u0102", "\u017e"),
    "cp1255": _of_letters(frozenset(), "\u05d0", "\u05ea"),
    "cp1256": _of_letters(frozenset(), "\u0620", "\u064a"),
    "latin-1": lambda *_: 0.0,
}


def ranked(data: bytes) -> list[str]:
    """Return Python's names of the encodings that can decode the front of a text, the likeliest first."""
    front = _front(data)
    scores = {name: found for name in _SCORES if (found := _score(name, front)) is not None}
    return sorted(scores, key=lambda name: -scores[name])


def _front(data: bytes) -> bytes:
    """Return some of the text's lines, those beyond ASCII: a long front of ASCII says nothing."""
    kept, size = [], 0
    for line in data.split(b"\n"):
        if not line.isascii():
            kept.append(line)
            size += len(line)
        if size > SAMPLE:
            break
    return b"\n".join(kept)


def _score(name: str, data: bytes) -> float | None:
    try:
        text = data.decode(name)
    except UnicodeDecodeError:
        return None
    counts = Counter(character for character in text if character > "\x7f")
    total = sum(counts.values())
    rate = _SCORES[name]
    found = sum(rate(character, character.encode(name)) * count for character, count in counts.items())
    return found / total if total else 0.0
