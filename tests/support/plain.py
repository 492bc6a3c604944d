"""Runs lines by `bash -c`, as anybody would, and prints a line of JSON for each: what a terminal is held to.

Its argument is a JSON list of objects with `line`, `folder`, `shell` and `pty`. It needs nothing but Python's standard
library, for it also runs in a sandbox's container.
"""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time

#: Seconds: no line runs for long.
PATIENCE = 20


def run(line: str, folder: str, shell: str, *, in_terminal: bool) -> tuple[int, str]:
    """The return code, negative for a signal, and all output."""
    env = dict(os.environ, PWD=folder)
    if in_terminal:
        return _in_terminal(line, folder, shell, env | {"TERM": "xterm-256color"})
    mine, its = os.pipe()
    started = subprocess.Popen(
        [shell, "-c", line], stdin=subprocess.DEVNULL, stdout=its, stderr=its, env=env, cwd=folder, process_group=0
    )
    os.close(its)
    # Read beside it, and at its end no more than is there: a descendant may hold the pipe open.
    os.set_blocking(mine, False)
    data, end = b"", time.monotonic() + PATIENCE
    while True:
        code = started.poll()
        data += _available(mine)
        if code is not None:
            os.close(mine)
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


def _in_terminal(line: str, folder: str, shell: str, env: dict[str, str]) -> tuple[int, str]:
    pid, master = pty.fork()
    if pid == 0:
        os.closerange(3, 256)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores
            signal.signal(number, signal.SIG_DFL)
        os.chdir(folder)
        os.execvpe(shell, [shell, "-c", line], env)
    data = b""
    while True:
        try:
            piece = os.read(master, 65536)
        except OSError:
            break
        if not piece:
            break
        data += piece
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), data.decode("utf-8", "replace")


if __name__ == "__main__":
    for job in json.loads(sys.argv[1]):
        os.makedirs(job["folder"], exist_ok=True)
        print(json.dumps(run(job["line"], job["folder"], job["shell"], in_terminal=job["pty"])), flush=True)
