"""`taskcell shell`: a real terminal in a task of a server, on the local engine."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import pytest

from gateways import GatewayFactory
from http_serving import PATIENCE
from observe import alive, eventually, marker
from taskcell.config.settings import Settings
from taskcell.deployment.doors import open_doors
from taskcell.http.local_door import with_local_door
from taskcell.model import ToolCall

pytestmark = pytest.mark.anyio

#: Printed before each prompt, whatever the prompt of this machine's shells is.
PROMPT = "ready-for-more"
LOCAL = 'manifests = []\n[engine]\nkind = "local"\n'
PROGRAM = "import sys; from taskcell.cli.app import run; import os; from pathlib import Path\n"
PROGRAM += "sys.exit(run(sys.argv[1:], environ=os.environ, cwd=Path('/')))"


class Terminal:
    """A terminal of 100 columns, with `taskcell shell` in it. `shown` is what nobody has waited for yet."""

    def __init__(self, state: Path, config: Path) -> None:
        self._own, theirs = pty.openpty()
        self.resize(30, 100)
        os.set_blocking(self._own, False)
        self.shown = b""
        environ = {**os.environ, "XDG_STATE_HOME": str(state), "TERM": "xterm"}
        environ |= {"COLUMNS": "80", "LINES": "24"}  # left over of another terminal
        words = [sys.executable, "-c", PROGRAM, "shell", "t", "--config", str(config)]
        self.process = subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, env=environ)
        os.close(theirs)

    def resize(self, rows: int, cols: int) -> None:
        fcntl.ioctl(self._own, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def type(self, keys: str) -> None:
        os.write(self._own, keys.encode())

    async def shows(self, wanted: str) -> None:
        """Wait until a text is shown after what was waited for before."""
        while wanted.encode() not in self.shown:
            assert self.process.poll() is None, self.shown
            with suppress(BlockingIOError):
                self.shown += os.read(self._own, 65536)
            await anyio.sleep(0.02)
        self.shown = self.shown.partition(wanted.encode())[2]

    async def ended(self) -> int:
        while self.process.poll() is None:
            with suppress(OSError):  # nobody waits for a reader of what is left
                self.shown += os.read(self._own, 65536)
            await anyio.sleep(0.02)
        return self.process.returncode

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._own)


@asynccontextmanager
async def terminal(gateway: GatewayFactory, tmp_path: Path) -> AsyncIterator[Terminal]:
    """A server with the task `t` in /tmp, and a shell in it that shows its prompt."""
    config = tmp_path / "shell.toml"
    config.write_text('deployment = "shells"\n')
    folder = tmp_path / "state/taskcell/deployments/shells"
    opener = with_local_door(lambda: gateway(LOCAL, engine="local", state=folder), Settings(), isolated=False)
    with anyio.fail_after(8 * PATIENCE):
        async with opener as gw:
            line = f"export SEEN=yes PROMPT_COMMAND='echo {PROMPT[:3]}\"\"{PROMPT[3:]}'; cd /tmp"
            await gw.call(ToolCall("local", "terminal", {"command": line, "task_id": "t"}))
            assert await anyio.to_thread.run_sync(lambda: eventually(lambda: bool(open_doors(folder))))
            opened = Terminal(tmp_path / "state", config)
            try:
                opened.type("echo be''gun\r")
                await opened.shows("begun")
                await opened.shows(PROMPT)
                yield opened
            finally:
                opened.close()


async def test_a_shell_begins_where_the_task_is_takes_interrupts_and_sizes_and_gives_its_code(
    gateway: GatewayFactory, tmp_path: Path
) -> None:
    async with terminal(gateway, tmp_path) as shell:
        shell.type("echo a-$SEEN $PWD $(stty size)\r")
        await shell.shows("a-yes /tmp 30 100")
        await shell.shows(PROMPT)
        shell.type("echo be''fore; sleep 1000\r")
        await shell.shows("before")
        shell.type("\x03")
        await shell.shows("^C")
        await shell.shows(PROMPT)
        shell.type("echo after-$?\r")
        await shell.shows("after-130")
        await shell.shows(PROMPT)
        shell.resize(41, 121)
        shell.process.send_signal(signal.SIGWINCH)
        shell.type("until stty size | grep '41 121'; do sleep 0.1; done\r")
        await shell.shows("41 121\r\n")
        await shell.shows(PROMPT)
        shell.type("exit 7\r")
        assert await shell.ended() == 7


async def test_a_shell_whose_terminal_is_closed_is_killed_with_what_it_runs(
    gateway: GatewayFactory, tmp_path: Path
) -> None:
    mark = marker()
    async with terminal(gateway, tmp_path) as shell:
        shell.type(f"sleep {mark}\r")
        assert await anyio.to_thread.run_sync(lambda: eventually(lambda: bool(alive(mark))))
        shell.process.send_signal(signal.SIGHUP)
        assert await shell.ended() != 0
        assert await anyio.to_thread.run_sync(lambda: eventually(lambda: not alive(mark)))


def test_without_a_terminal_it_says_what_to_use(tmp_path: Path) -> None:
    words = [sys.executable, "-c", PROGRAM, "shell", "t"]
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 2
    assert "exec --task" in done.stderr
