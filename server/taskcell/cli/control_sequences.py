"""What of a command's output may reach a person's terminal: colours, cursor moves and erasing, and nothing else.

A terminal obeys what it shows. Output could set its title, write to the clipboard (OSC 52), have it answer as if the
person had typed (`ESC[6n`), or change its modes for good. The sequences are those of ECMA-48 and of xterm.
"""

from __future__ import annotations

import re

#: Colours and attributes; moves of the cursor, and its place saved and restored; erasing, but not of what has scrolled
#: out (`3J`). A private marker before the numbers makes other commands of these, so there is none.
_HARMLESS = re.compile(r"\x1b(?:\[[0-9;:]*m|\[[0-9;]*[A-HXdf]|\[[012]?[JK]|\[[su]|[78])")
_SEQUENCES = re.compile(
    # A control sequence.
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    # A string for the terminal, to its end; one without an end goes with the rest of its line.
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d\x9e\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)?"
    # Any other escape, and controls that are not tab, line feed, return or backspace.
    r"|\x1b[ -/]*[0-~]?|[\x00-\x07\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f]"
)


def harmless(text: str) -> str:
    """The text without what does more to a terminal than show, colour and place characters."""
    return _SEQUENCES.sub(lambda found: found[0] if _HARMLESS.fullmatch(found[0]) else "", text)
