"""`taskcell logs`"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from taskcell.assembly.invocation import Invocation
from taskcell.cli.command import command
from taskcell.cli.control_sequences import harmless
from taskcell.errors import TaskcellError
from taskcell.model import LOCAL_PRINCIPAL, TaskKey

if TYPE_CHECKING:
    from taskcell.mcp.local_client import LocalClient

#: Seconds between two looks for new output.
LOOK_AGAIN = 0.3


def register(app: typer.Typer) -> None:
    command(app, example="taskcell logs build-website p3 --follow", takes_folder=True)(logs)


def logs(
    run: Invocation,
    task: Annotated[str, typer.Argument(metavar="TASK", help="A task of a running server.")],
    process: Annotated[
        str | None, typer.Argument(metavar="PROCESS", help="Its name, such as p3; default: all.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show new output until the process ends.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Pass control sequences to the terminal unfiltered.")] = False,
) -> None:
    """Show what a task's processes have printed, as far as it is kept.

    Standard output and standard error go where they came from. With --follow and no PROCESS, it is the newest one's.
    """
    import anyio

    from taskcell.assembly import stack
    from taskcell.cli.in_task import door_of

    async def main() -> None:
        settings = stack.load_settings(run)
        folder = stack.state_folder(run, settings)
        door = None if folder is None else await door_of(folder, TaskKey(LOCAL_PRINCIPAL, task))
        if door is None:
            raise TaskcellError(f"No running server has the task {task!r}; `taskcell ps` lists what there is.")
        await show_logs(door, task, process, follow=follow, raw=raw)

    anyio.run(main)


async def show_logs(door: Path, task: str, process: str | None, *, follow: bool, raw: bool) -> None:
    """Write the output of a task's processes. Raises TaskcellError if there is no such process."""
    from taskcell.mcp.local_client import local_client

    async with local_client(door) as client:
        listed = await _processes(client, task)
        if process is not None and process not in listed:
            raise TaskcellError(f"The task has no process {process!r}; it has {', '.join(listed) or 'none'}.")
        chosen = [process] if process is not None else list(listed)[-1:] if follow else list(listed)
        for name in chosen:
            if len(chosen) > 1:
                sys.stderr.write(f"==> {name}: {listed[name]['command']!a}\n")
            output = ShownOutput(client, task, name, raw=raw)
            await output.show()
            if follow:
                await _follow(output)


async def _processes(client: LocalClient, task: str) -> dict[str, dict[str, Any]]:
    """The task's processes by name, the oldest first."""
    listed = await client.call("process", {"action": "list", "task_id": task})
    return {info["process_id"]: info for info in listed["processes"]}


async def _follow(output: ShownOutput) -> None:
    """Show what comes until the process has ended."""
    import anyio

    while True:
        found = (await _processes(output.client, output.task)).get(output.process)
        await output.show()  # after the look: what it wrote before its end is there
        if found is None or found["status"] != "running":
            return
        await anyio.sleep(LOOK_AGAIN)


class ShownOutput:
    """The output of one process, shown from where the last look has ended."""

    def __init__(self, client: LocalClient, task: str, process: str, *, raw: bool) -> None:
        self.client, self.task, self.process = client, task, process
        self._raw = raw
        self._cursors = {"stdout": 0, "stderr": 0}

    async def show(self) -> None:
        """Write what is new to the stream of the same name. Raises TaskcellError if it is not known any more."""
        from taskcell.cli.in_task import read_stream

        for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr)):
            piece = await read_stream(self.client, self.task, self.process, name, self._cursors[name])
            self._cursors[name] = piece.end
            data = piece.data
            if stream.isatty() and not self._raw:
                data = harmless(data.decode("utf-8", "replace")).encode("utf-8", "replace")
            stream.buffer.write(data)
            stream.flush()
