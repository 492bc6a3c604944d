"""Says why a text is not in a file, so that the next try can succeed: where it nearly is, and what differs there.

Nothing that is found here is changed: only exact text is replaced.
"""

from __future__ import annotations

import html
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from taskcell.files.folding import Folded, fold, folded_character
from taskcell.files.nearest import Near, nearest_places
from taskcell.text import visible

#: Characters of the file's own text that a sentence quotes; of a longer one, the lines that differ.
QUOTED = 2000
#: Lines of a place that are shown where nothing comes near, and characters of a line.
_SHOWN_LINES, _LINE_CHARS = 6, 160
#: The likeness (0 to 1) from which a place is the one that was meant.
_MEANT = 0.72
#: Characters of a replacement from which finding it says something: shorter ones are found anywhere.
_TELLING = 8

_NUMBERED = re.compile(r"^[ \t]*\d+(?:\t|[ \t]*[|→:][ \t]?)", re.MULTILINE)
_ESCAPES = {"n": "\n", "t": "\t", "r": "", '"': '"', "'": "'", "\\": "\\", "/": "/"}
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|[ntr\"'\\/])")
_MARKED = re.compile(r"^[+\- ]", re.MULTILINE)


def diagnose(path: str, text: str, old: str, new: str = "") -> str:
    """Return the sentences for `old` that is not in `text`, and below them, if any, lines of the text.

    All have LF at the ends of lines.
    """
    head = f"'old' is not in {path}; nothing was changed.{_made_before(text, old, new)}"
    folded = Folded(text)
    for slip, variant in _variants(old):
        count, place = folded.find(fold(variant).replace("\n", ""))
        if count and _ends_alike(folded.lines, place, variant):
            return f"{head} {_of_place(folded.lines, place, variant, slip, count)}"
    return f"{head} {_of_nearest(text, folded.lines, old)}"


def _made_before(text: str, old: str, new: str) -> str:
    """Say where `new` stands already: a model makes an edit again whose answer it has lost."""
    at = text.find(new) if len(new.strip()) >= _TELLING and new not in old else -1
    line = text.count("\n", 0, at) + 1
    return f" 'new' is there already, at line {line}: perhaps this edit was made before." if at >= 0 else ""


def _variants(old: str) -> Iterator[tuple[str, str]]:
    """Yield a slip in words and what was meant, the likeliest first."""
    yield "", old
    lines = [line for line in old.split("\n") if line.strip()]
    if lines and all(_NUMBERED.match(line) for line in lines):
        yield "'old' has line numbers in front of its lines, which are not in the file. ", _NUMBERED.sub("", old)
    if _ESCAPE.search(old):
        yield (
            "'old' has escapes such as \\n or \\\" as text, where the file has the characters. ",
            _ESCAPE.sub(_unescaped, old),
        )
    escaped = json.dumps(old, ensure_ascii=False)[1:-1]
    # In the file's code they may stand in a string, whose quotes are none.
    for variant in dict.fromkeys((escaped, escaped.replace('\\"', '"'))):
        if variant != old:
            yield "The file has escapes such as \\n or \\\" as text, where 'old' has the characters. ", variant
    if html.unescape(old) != old:
        yield "'old' has HTML's escapes such as &lt;, where the file has the characters. ", html.unescape(old)
    if html.escape(old, quote=False) != old:
        yield (
            "The file has HTML's escapes such as &lt;, where 'old' has the characters. ",
            html.escape(old, quote=False),
        )
    if lines and all(_MARKED.match(line) for line in lines) and any(line[0] in "+-" for line in lines):
        yield "'old' has the marks + and - of a patch in front of its lines. ", _MARKED.sub("", old)
    fenced = re.fullmatch(r"\s*```\w*\n(.*?)\n?```\s*", old, re.DOTALL)
    if fenced:
        yield "'old' has a fence of ``` around it. ", fenced[1]


def _unescaped(found: re.Match[str]) -> str:
    word = found[1]
    return chr(int(word[1:], 16)) if word[0] == "u" and len(word) == 5 else _ESCAPES[word]


# --- where all but looks is equal -------------------------------------------------------------------------------


def _of_place(lines: list[str], place: list[tuple[int, int]], old: str, slip: str, count: int) -> str:
    (first, begin), (last, end) = place
    # What `old` begins and ends with of blanks belongs to the place.
    if old[:1].isspace():
        begin = len(lines[first][:begin].rstrip()) if lines[first][:begin].strip() else 0
    tail = lines[last][end:]
    if old[-1:].isspace():
        end += len(tail) - len(tail.lstrip())
    exact = "\n".join([*lines[first:last], lines[last]])[begin:] if first < last else lines[first][begin:]
    exact = exact[: len(exact) - (len(lines[last]) - end)] if end < len(lines[last]) else exact
    if old.endswith("\n") and end == len(lines[last]) and last + 1 < len(lines):
        exact += "\n"
    where = f"line {first + 1}" if first == last else f"lines {first + 1} to {last + 1}"
    also = f", and {count - 1} more places are like it" if count > 1 else ""
    found = _difference(exact, old, first + 1, begin + 1)
    return f"{slip}The place is {where}{found and f', first different at {found}'}{also}.{_quoted(exact, first + 1)}"


def _ends_alike(lines: list[str], place: list[tuple[int, int]], old: str) -> bool:
    """Whether whole lines were found for what is whole lines, and not the first letters of a longer word."""
    (first, begin), (last, end) = place
    ends_line = not old.rstrip(" \t").endswith("\n") or not fold(lines[last][end:])
    return ends_line and (not old.startswith("\n") or not fold(lines[first][:begin]))


def _quoted(exact: str, line: int) -> str:
    if len(exact) > QUOTED:
        return f" Read the file from line {line} and copy it exactly."
    return f" The file's text there, as a JSON string: {_as_json(exact)}"


def _as_json(text: str) -> str:
    """Write a text so that each character can be told: those that look like others, or like nothing, as escapes."""
    quoted = json.dumps(text, ensure_ascii=False)
    odd = (character for character in set(quoted) if not character.isascii() and _is_odd(character))
    return quoted.translate({ord(character): json.dumps(character)[1:-1] for character in odd})


def _is_odd(character: str) -> bool:
    return not character.isalpha() or unicodedata.normalize("NFC", character) != character


def _difference(exact: str, old: str, line: int, column: int) -> str:
    """Describe the first difference between texts that fold to the same; empty if there is none."""
    at = mine = 0
    while at < len(exact) and mine < len(old) and exact[at] == old[mine]:
        line, column = (line + 1, 1) if exact[at] == "\n" else (line, column + 1)
        at, mine = at + 1, mine + 1
    if at == len(exact) and mine == len(old):
        return ""
    theirs, ours = _blanks(exact, at), _blanks(old, mine)
    here = f"line {line}, character {column}"
    if theirs != ours and (theirs or ours) and _same_after(exact[at + len(theirs) :], old[mine + len(ours) :]):
        return f"{here}: the file has {_blank_words(theirs)} where 'old' has {_blank_words(ours)}"
    return f"{here}: the file has {_named(exact[at : at + 1])} where 'old' has {_named(old[mine : mine + 1])}"


def _same_after(one: str, other: str) -> bool:
    return not one or not other or folded_character(one[0]) == folded_character(other[0])


def _blanks(text: str, at: int) -> str:
    """Return the ASCII blanks that stand around a place, from it on."""
    end = at
    while end < len(text) and text[end] in " \t\n\r\f\v":
        end += 1
    return text[at:end]


_BLANK_NAMES = {" ": "space", "\t": "tab", "\n": "line break", "\r": "carriage return"}


def _blank_words(blanks: str) -> str:
    if not blanks:
        return "nothing"
    counts = Counter(blanks)
    words = ((_BLANK_NAMES.get(blank, "control character"), count) for blank, count in counts.items())
    return " and ".join(f"{count} {word}{'s' if count > 1 else ''}" for word, count in words)


def _named(character: str) -> str:
    if not character:
        return "nothing"
    if character in _BLANK_NAMES:
        return f"a {_BLANK_NAMES[character]}"
    if character.isascii() and character.isprintable():
        return f'"{character}"' if character != '"' else "'\"'"
    name = unicodedata.name(character, "CONTROL CHARACTER")
    return f"U+{ord(character):04X} {name} (\\u{ord(character):04x} in JSON)"


# --- where words differ -----------------------------------------------------------------------------------------


def _of_nearest(text: str, lines: list[str], old: str) -> str:
    near = nearest_places(text, lines, old)
    if not near:
        return "Nothing in it comes near; read the file, or search for a word of it."
    best = _with_end(near[0], lines, old)
    if best.likeness >= _MEANT and (len(near) == 1 or near[1].likeness < best.likeness):
        return f"Nearest to it: {_word_difference(best, old)}.{_quoted(best.text, best.line + 1)}"
    shown = "\n".join(_shown(place) for place in near)
    return f"Nearest to it are these places, with the numbers of their lines:\n{shown}"


def _with_end(place: Near, lines: list[str], old: str) -> Near:
    """Return a place with the line break behind it, if `old` ends with one."""
    last = place.line + place.text.count("\n")
    follows = last + 1 < len(lines) and lines[last].endswith(place.text.rpartition("\n")[2])
    return replace(place, text=place.text + "\n") if old.endswith("\n") and follows else place


def _shown(place: Near) -> str:
    lines = place.text.split("\n")[:_SHOWN_LINES]
    return "\n".join(f"{number}\t{visible(line[:_LINE_CHARS])}" for number, line in enumerate(lines, place.line + 1))


def _word_difference(place: Near, old: str) -> str:
    """Name the first words that differ."""
    theirs, ours = place.text.split("\n"), old.strip("\n").split("\n")
    for number, line in enumerate(theirs):
        mine = ours[number] if number < len(ours) else ""
        if fold(line) == fold(mine):
            continue
        one, other = _first_words(line, mine, whole_lines=len(ours) > 1)
        return f"line {place.line + number + 1} has {one} where 'old' has {other}"
    more = "'old' has lines that the file does not have there" if len(ours) > len(theirs) else "blanks differ"
    return f"line {place.line + 1}, but {more}"


def _first_words(line: str, mine: str, *, whole_lines: bool) -> tuple[str, str]:
    """Return the words around the first character that differs."""
    if not whole_lines:
        line, mine = line.lstrip(), mine.lstrip()
    pairs = enumerate(zip(line, mine, strict=False))
    at = next((i for i, pair in pairs if pair[0] != pair[1]), min(len(line), len(mine)))
    return _word_at(line, at), _word_at(mine, at)


def _word_at(line: str, at: int) -> str:
    begin = at
    while begin and (line[begin - 1].isalnum() or line[begin - 1] == "_"):
        begin -= 1
    found = re.compile(r"\w+|\S").match(line, begin) or re.compile(r"\s*").match(line, begin)
    return _as_json(found[0][:60]) if found and found[0] else "nothing"
