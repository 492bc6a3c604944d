"""A program that searches texts for one regular expression. `pattern_search.py` starts it, and is its only caller.

It is a process of its own because a pattern may backtrack for ever, or take all memory, and Python cannot interrupt its
`re` module: so the kernel does. It imports the standard library alone, for it is started by its path.

Each text comes on standard input as its length in bytes (4, little-endian) and its UTF-8; the pattern comes first. Each
reply is one line of JSON: `null`, `[start, end]` in characters, or a sentence on what is wrong.
"""

import os

if __name__ == "__main__":
    # The server's own work comes first, before that of the imports too: they take most of a start.
    os.nice(10)

import json
import re
import resource
import signal
import sys
from contextlib import suppress

#: Seconds of processor time for one text: a pattern that does not explode takes milliseconds.
SEARCH_SECONDS = 1.0
#: Bytes of address space: an interpreter, and a hundred times what the longest text needs.
MEMORY = 512 << 20


def main() -> None:
    for kind, most in ((resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_CORE, 0)):
        with suppress(ValueError, OSError):  # not every system has each limit
            resource.setrlimit(kind, (most, most))
    pattern: re.Pattern[str] | None = None
    while len(head := sys.stdin.buffer.read(4)) == 4:
        text = sys.stdin.buffer.read(int.from_bytes(head, "little")).decode()
        # The default action of SIGPROF ends this process, also in the middle of a search.
        signal.setitimer(signal.ITIMER_PROF, SEARCH_SECONDS)
        reply: object = None
        try:
            if pattern is None:
                pattern = re.compile(text, re.MULTILINE)
            else:
                reply = first(pattern, text)
        except (re.error, ValueError, OverflowError, RecursionError) as error:
            reply = str(error)
        except MemoryError:
            reply = "it needs too much memory"
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()


def first(pattern: re.Pattern[str], text: str) -> tuple[int, int] | None:
    """Return where the first match is. An empty one behind the last character is none: a line begins there or not."""
    for found in pattern.finditer(text):
        if found.start() < len(text):
            return found.span()
    return None


if __name__ == "__main__":
    main()
