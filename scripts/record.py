"""Record steps of the demo in a terminal: `record.py FILE.cast`, in the format of asciinema, version 2.

Long waits are cut, and calls are held back for reading: the figures of time are those that the answers have.
`make recording` makes the picture of docs/ from it.
"""

from __future__ import annotations

import codecs
import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STEPS = ("files", "data", "skills", "time_out", "close")
COLUMNS, ROWS = 100, 32
#: Seconds: nobody wants to watch a command that does nothing.
LONGEST_PAUSE = 1.2
#: Seconds before each call, to read what the last one gave.
BEFORE_A_CALL = 1.5
A_CALL = "\x1b[1mterminal\x1b[0m", "\x1b[1msql\x1b[0m", "\x1b[1mjq\x1b[0m", "\x1b[1msandbox\x1b[0m"
#: Seconds that the last lines stay before the picture begins again.
AT_THE_END = 4.0


def record(argv: list[str]) -> tuple[list[list[object]], int]:
    """Run a program in a terminal. Return its output as events, and its exit code."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    environ = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": str(ROWS)}
    with subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, env=environ, cwd=ROOT) as program:
        os.close(theirs)
        events: list[list[object]] = []
        shown, before, text = 0.0, time.monotonic(), codecs.getincrementaldecoder("utf-8")("replace")
        while data := _read(ours):
            now = time.monotonic()
            shown, before = shown + min(now - before, LONGEST_PAUSE), now
            said = text.decode(data)
            shown += BEFORE_A_CALL * any(name in said for name in A_CALL)
            events.append([round(shown, 3), "o", said])
    os.close(ours)
    return [*events, [round(shown + AT_THE_END, 3), "o", ""]], program.returncode


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # the last program with the terminal has ended
        return b""


def main() -> int:
    target = Path(sys.argv[1])
    events, code = record([sys.executable, "scripts/demo.py", *STEPS])
    if code == 0:
        header = {"version": 2, "width": COLUMNS, "height": ROWS, "title": "taskcell: make demo"}
        target.write_text("".join(json.dumps(line) + "\n" for line in [header, *events]), encoding="utf-8")
    else:
        print("".join(str(event[2]) for event in events), file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
