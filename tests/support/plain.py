"""Runs lines by `bash -c`, as anybody would, and prints a line of JSON for each: what a terminal is held to.

Its argument is a JSON list of objects with `line`, `folder`, `shell` and `pty`. It needs nothing but Python's standard
library, for it also runs in a sandbox's container.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time

#: Seconds: no line runs for long.
PATIENCE = 60


def run(line: str, folder: str, shell: str, *, in_terminal: bool) -> tuple[int, str]:
    """The return code, negative for a signal, and all output."""
    env = dict(os.environ, PWD=folder) | ({"TERM": "xterm-256color"} if in_terminal else {})
    mine, its = pty.openpty() if in_terminal else os.pipe()

    def begin() -> None:
        # Python ignores two signals, and whoever started it may have ignored others.
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        if in_terminal:
            os.setsid()
            fcntl.ioctl(its, termios.TIOCSCTTY, 0)
        else:
            os.setpgid(0, 0)

    started = subprocess.Popen(
        [os.path.basename(shell), "-c", line],
        executable=shell,
        stdin=its if in_terminal else subprocess.DEVNULL,
        stdout=its,
        stderr=its,
        env=env,
        cwd=folder,
        preexec_fn=begin,  # noqa: PLW1509 - there is no other thread
    )
    # Read beside it, and at its end no more than is there: a descendant may hold the other end open. So do we, for a
    # terminal that nobody has open forgets what it holds.
    os.set_blocking(mine, False)
    data, end = b"", time.monotonic() + PATIENCE
    while True:
        code = started.poll()
        data += _available(mine)
        if code is not None:
            os.close(mine)
            os.close(its)
            return code, data.decode("utf-8", "replace")
        if time.monotonic() > end:
            raise TimeoutError(line)
        select.select([mine], [], [], 0.002)


def _available(fd: int) -> bytes:
    data = b""
    while True:
        try:
            piece = os.read(fd, 65536)
        except BlockingIOError:
            return data
        if not piece:
            return data
        data += piece


if __name__ == "__main__":
    for job in json.loads(sys.argv[1]):
        os.makedirs(job["folder"], exist_ok=True)
        print(json.dumps(run(job["line"], job["folder"], job["shell"], in_terminal=job["pty"])), flush=True)
