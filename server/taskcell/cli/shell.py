"""`taskcell shell`"""

from __future__ import annotations

import codecs
import os
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taskcell.assembly.invocation import Invocation
from taskcell.cli.command import EXIT_FAILED, command
from taskcell.errors import TaskcellError
from taskcell.model import LOCAL_PRINCIPAL, TaskKey

if TYPE_CHECKING:
    from taskcell.mcp.local_client import LocalClient

#: The shell of the sandbox: bash where the image has it.
SHELL_LINE = "command -v bash >/dev/null 2>&1 && exec bash -i; exec sh -i"
#: Seconds that one call waits for output; the next one goes on where it ended.
LOOK = 25.0
#: Bytes of input that are sent at once: a large paste goes in several pieces.
PASTE = 32 << 10
#: Seconds at a hang-up for the shell to be killed with everything that it has started.
HANGUP_PATIENCE = 5.0


def register(app: typer.Typer) -> None:
    command(app, example="taskcell shell build-website")(shell)


def shell(
    run: Invocation,
    task: Annotated[str, typer.Argument(metavar="TASK", help="A task of a running server.")],
) -> int:
    """Open a terminal in a task, where its own terminal is now, and exit with the shell's code.

    The agent goes on meanwhile; nothing that the shell sets carries over to it, and both see the same files. What runs
    in the sandbox can write anything to this terminal.
    """
    import anyio

    from taskcell.assembly import stack
    from taskcell.cli.in_task import door_of

    if not (sys.stdin and sys.stdin.isatty() and sys.stdout and sys.stdout.isatty()):
        raise typer.BadParameter("This needs a terminal; `taskcell exec --task TASK -i -- CMD` takes other input.")
    settings = stack.load_settings(run)
    folder = stack.state_folder(run, settings)
    door = None if folder is None else anyio.run(door_of, folder, TaskKey(LOCAL_PRINCIPAL, task))
    if door is None:
        raise TaskcellError(f"No running server has the task {task!r}; `taskcell ps` lists what there is.")
    return anyio.run(_main, door, task, run.environ.get("TERM", "xterm"))


async def _main(door: Path, task: str, term: str) -> int:
    from taskcell.mcp.local_client import local_client

    async with local_client(door) as client:
        # Not shutil's: that believes COLUMNS and LINES of the environment, which may be another terminal's.
        cols, rows = os.get_terminal_size(sys.stdin.fileno())
        started = await client.call(
            "terminal",
            {
                "command": SHELL_LINE,
                "task_id": task,
                "background": True,
                "pty": True,
                "rows": rows,
                "cols": cols,
                "env": {"TERM": term},
            },
        )
        return await Session(client, task, str(started["process_id"])).run()


class Session:
    """One shell, with this process's terminal."""

    def __init__(self, client: LocalClient, task: str, process: str) -> None:
        self._client = client
        self._about = {"task_id": task, "process_id": process}
        self._code: int | None = None

    async def run(self) -> int:
        """Pass everything on until the shell ends, or this terminal does; return the exit code."""
        import anyio

        async with anyio.create_task_group() as passing:
            with _raw(sys.stdin.fileno()):
                try:
                    passing.start_soon(self._signals, passing.cancel_scope)
                    passing.start_soon(self._input)
                    await self._output()
                    passing.cancel_scope.cancel()
                finally:
                    if self._code is None:
                        with anyio.move_on_after(HANGUP_PATIENCE, shield=True):
                            await self._act("kill")
        return EXIT_FAILED if self._code is None else self._code

    async def _act(self, action: str, **more: Any) -> dict[str, Any]:
        return await self._client.call("process", {"action": action, **self._about, **more})

    async def _output(self) -> None:
        """Write what the shell prints, until it has ended."""
        from taskcell.cli.in_task import read_stream

        cursor = 0
        while True:
            state = await self._act("poll", cursor=cursor, wait=LOOK)
            piece = await read_stream(self._client, self._about["task_id"], self._about["process_id"], "stdout", cursor)
            cursor = piece.end
            os.write(sys.stdout.fileno(), piece.data)
            if state["status"] != "running":
                self._code = state["exit_code"]
                return

    async def _input(self) -> None:
        """Send what is typed; the end of the terminal ends the shell's input."""
        import anyio

        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while True:
            await anyio.wait_readable(sys.stdin.fileno())
            typed = os.read(sys.stdin.fileno(), PASTE)
            if not typed:
                await self._act("close_stdin")
                return
            if text := decoder.decode(typed):
                await self._act("write", data=text)

    async def _signals(self, passing: Any) -> None:
        import anyio

        with anyio.open_signal_receiver(signal.SIGWINCH, signal.SIGHUP, signal.SIGTERM) as signals:
            async for number in signals:
                if number != signal.SIGWINCH:
                    passing.cancel()
                    return
                cols, rows = os.get_terminal_size(sys.stdin.fileno())
                await self._act("resize", rows=rows, cols=cols)


@contextmanager
def _raw(terminal: int) -> Iterator[None]:
    """The terminal passes every key on, ^C too, until this is left."""
    before = termios.tcgetattr(terminal)
    tty.setraw(terminal, termios.TCSADRAIN)  # what was typed before stays
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
