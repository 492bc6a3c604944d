"""A bash that stays in a task: what one command sets is there for the next."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from io import BytesIO
from typing import Any

from taskcell.client.failures import CellError, LostError, error_of
from taskcell.client.process import BytesLike, Done, OutputPiece, done_of, exact_bytes
from taskcell.client.wire import ServerClient, frames, task_path

_NAMES: dict[int, Any] = {1: "stdout", 2: "stderr"}


class ShellEndedError(CellError):
    """The shell has ended under a command: by `exit` or `exec`, by a signal, or because it took no interrupt.

    Arguments:
        done: how it ended, and what came of the command's output.
    """

    code = "lost"

    def __init__(self, done: Done) -> None:
        super().__init__(f"The shell has ended under this command ({done.status}, exit code {done.exit_code}).")
        self.done = done

    def __reduce__(self) -> tuple[type[ShellEndedError], tuple[Done]]:
        return type(self), (self.done,)


class Shell:
    """A named bash. It runs one command at a time, and takes input and interrupts meanwhile."""

    def __init__(self, wire: ServerClient, task: str, name: str) -> None:
        self._wire = wire
        self._task = task
        self.name = name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} of task {self._task!r}>"

    async def run(
        self,
        line: str,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - the shell's, which is interrupted then
        on_output: Callable[[OutputPiece], None] | None = None,
    ) -> Done:
        """Run a line, or several, to its end. Raises ShellEndedError when the shell ends with it, or a CellError.

        Arguments:
            timeout: seconds; the command is interrupted then, as by ^C, and a shell that does not take that is killed.
            on_output: called with the output as it comes; it is in the result all the same.
        """
        held = {"stdout": BytesIO(), "stderr": BytesIO()}
        content = json.dumps({"line": line, "timeout": timeout}).encode()
        async with self._wire.stream("POST", self._path("commands"), task=self._task, content=content) as answer:
            async for kind, data in frames(answer):
                if kind:
                    held[_NAMES[kind]].write(data)
                    if on_output is not None:
                        on_output(OutputPiece(_NAMES[kind], data))
                    continue
                fields = json.loads(data)
                if "error" in fields:
                    raise error_of(fields["error"])
                if not fields:
                    continue  # the first event
                done = done_of(fields, held["stdout"].getvalue(), held["stderr"].getvalue())
                if fields["shell_ended"]:
                    raise ShellEndedError(done)
                return done
        raise LostError("The server went away while the command ran.")

    async def write(self, data: BytesLike) -> None:
        """Send bytes to the standard input of what runs, or of what runs next."""
        await self._wire.json_bytes(self._path("stdin"), exact_bytes(data), task=self._task)

    async def interrupt(self) -> None:
        """End the command that runs, as ^C does in a terminal."""
        await self._wire.json_bytes(self._path("interrupt"), b"", task=self._task)

    def _path(self, action: str) -> str:
        return task_path(self._task, "shells", self.name, action)


@asynccontextmanager
async def opened_shell(wire: ServerClient, task: str, name: str, about: dict[str, Any]) -> AsyncIterator[Shell]:
    """Arguments as those of `Task.shell`."""
    content = json.dumps(about).encode()
    async with wire.stream("POST", task_path(task, "shells", name), task=task, content=content) as answer:
        events = frames(answer)  # held: what reads a body closes it when nobody has it any more
        kind, data = await anext(events, (0, b"{}"))
        fields = json.loads(data)
        if kind or "process_id" not in fields:
            raise error_of(fields.get("error", {"code": "lost", "message": "The server went away."}))
        try:
            yield Shell(wire, task, name)
        finally:
            await events.aclose()
