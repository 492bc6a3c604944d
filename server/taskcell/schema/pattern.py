"""Accept regular expressions that mean the same in Python and in ECMAScript, by which clients check JSON Schema."""

from __future__ import annotations

import re
from functools import lru_cache

_ESCAPE = r"\\(?:[dDwWsStnrfv^$\\.*+?()\[\]{}|/]|x[0-9A-Fa-f]{2}|u(?![dD][89A-Fa-f])[0-9A-Fa-f]{4})"
#: Both languages read these in the same way, under ECMAScript's flag `u`, which validators set.
_TOKEN = re.compile(
    rf"""
      (?P<escape>{_ESCAPE})
    | (?P<edge>\\b|\^)
    | (?P<end>\$)
    | (?P<set>\[(?!\^\])\^?(?:(?!--|&&|\|\||~~)[^\]\[\\]|{_ESCAPE}|\\-)+\])
    | (?P<look>\(\?<?[=!])
    | (?P<open>\((?:\?:)?(?!\?))
    | (?P<close>\))
    | (?P<repeat>(?:[*+?]|\{{\d+(?:,\d*)?\}})\??)
    | (?P<either>\|)
    | (?P<plain>[^\\\[\](){{}}*+?|^$])
    """,
    re.VERBOSE,
)
#: A repetition may come after these.
_REPEATABLE = frozenset({"escape", "set", "plain", "group"})


def check_pattern(pattern: str) -> None:
    """Raise ValueError, with what to write instead, unless both languages read the pattern in the same way.

    The common part: characters and escaped punctuation, `\\d`, `\\w`, `\\s` and their opposites, `\\t`, `\\n`, `\\r`,
    `\\f`, `\\v`, `\\xhh`, `\\uhhhh`, sets, groups, looks around, `\\b`, `^`, `$`, `|`, and repetitions, greedy
    or lazy.
    """
    opened: list[str] = []
    last, at = "", 0
    while at < len(pattern):
        found = _TOKEN.match(pattern, at)
        if found is None:
            raise ValueError(_not_portable(pattern, at))
        kind = str(found.lastgroup)
        if kind == "repeat" and last not in _REPEATABLE:
            raise ValueError(_not_portable(pattern, at))
        if kind in ("look", "open"):
            opened.append("look" if kind == "look" else "group")
        elif kind == "close" and opened:
            kind = opened.pop()
        last, at = kind, found.end()
    try:
        re.compile(pattern, re.ASCII)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"is not a regular expression: {error}") from None


def _not_portable(pattern: str, at: int) -> str:
    return (
        f"means different things to different clients from character {at + 1}, {pattern[at : at + 8]!r}, on: "
        "use only sets, groups, repetitions and escaped punctuation"
    )


def anchored(pattern: str) -> str:
    """Return the pattern for a JSON Schema, where a pattern matches anywhere unless it is anchored."""
    return f"^(?:{pattern})$"


def plain(schema_pattern: str) -> str:
    """Return the author's pattern from what `anchored` made of it."""
    return schema_pattern.removeprefix("^(?:").removesuffix(")$")


def matches(schema_pattern: str, text: str) -> bool:
    """Whether the whole text is what the pattern, a checked and anchored one, describes."""
    return _compiled(schema_pattern).fullmatch(text) is not None


@lru_cache
def _compiled(schema_pattern: str) -> re.Pattern[str]:
    # Python's own `$` also matches before a line break at the end, and its `\d` other scripts' digits.
    words = (r"\Z" if token["end"] else token[0] for token in _TOKEN.finditer(schema_pattern))
    return re.compile("".join(words), re.ASCII)
