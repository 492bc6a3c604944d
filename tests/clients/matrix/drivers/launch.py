"""Run the server as it is given, and write its exit code into a file: `launch.py FILE PROGRAM ARGUMENT…`.

Clients say nothing about how their server ended. The server is in a session of its own, so that a client which signals
the whole group signals it once, as it would without this program, which passes the signal on.
"""

from __future__ import annotations

import signal
import subprocess
import sys


def main() -> None:
    file, *program = sys.argv[1:]
    with subprocess.Popen(program, start_new_session=True) as server:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, _: server.send_signal(number))
        _note(file, f"start {server.pid}")
        code = server.wait()
    _note(file, f"exit {code}")
    sys.exit(code if code >= 0 else 128 - code)


def _note(file: str, line: str) -> None:
    with open(file, "a", encoding="utf-8") as notes:  # one write, so that lines of several servers stay whole
        notes.write(line + "\n")


main()
