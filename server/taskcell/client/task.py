"""One task of a server: its commands, its files, its end."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from taskcell.client.process import Done, RunningCommand, request_of, started
from taskcell.client.wire import ServerClient, file_path

#: A file's path: from the workspace, or absolute below `/workspace`.
RemotePath = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class FileEntry:
    """What a folder has. `kind` is `file`, `folder`, `link` or `other`; `size` of a file, in bytes."""

    name: str
    kind: str
    size: int | None
    target: str | None


class Task:
    """A task. Its sandbox is made at its first command, and serves until `close`, or its server's limits say so."""

    def __init__(self, wire: ServerClient, task_id: str) -> None:
        self._wire = wire
        self.id = task_id

    # --- commands ----------------------------------------------------------------------------------------------

    async def run(
        self,
        command: str | Sequence[str],
        *,
        stdin: bytes | AsyncIterable[bytes] = b"",
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        cwd: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the supervisor's, which kills the command
    ) -> Done:
        """Run a command to its end. Nothing of one run changes the next, but for files.

        Raises a CellError if it did not start, or its sandbox was lost. Its exit code is never an error: see `check`.

        Arguments:
            command: a line for the task's shell, or a program and its arguments, which no shell sees.
            stdin: all of its standard input.
            env: variables for it alone.
            user: whom it runs as, as far as the task's environment allows that.
            cwd: its folder, absolute or from the workspace.
            timeout: seconds; it is killed then, with everything that it started. None: never.
        """
        request = request_of(command, stdin, env, user, cwd, timeout)
        async with started(self._wire, self.id, request, stdin) as process:
            return await process.wait()

    @asynccontextmanager
    async def start(
        self,
        command: str | Sequence[str],
        *,
        stdin: bytes | AsyncIterable[bytes] | None = b"",
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        cwd: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the supervisor's, which kills the command
    ) -> AsyncIterator[RunningCommand]:
        """Start a command whose output is read as it comes. It is killed when the block is left before it has ended.

        Arguments:
            stdin: as in `run`; None keeps it open for `write` and `close_stdin`.
        """
        request = request_of(command, stdin, env, user, cwd, timeout)
        async with started(self._wire, self.id, request, stdin) as process:
            yield process

    # --- files -------------------------------------------------------------------------------------------------

    async def read_bytes(self, path: RemotePath) -> bytes:
        """Return a file's bytes. Raises NotFoundError, FolderError, ForbiddenError."""
        async with self._wire.stream("GET", file_path(self.id, path), task=self.id) as answer:
            if answer.headers.get("x-taskcell-kind") == "folder":
                from taskcell.client.failures import FolderError

                raise FolderError(f"{os.fspath(path)} is a folder; download it.")
            return await answer.aread()

    async def write_bytes(self, path: RemotePath, data: bytes) -> None:
        """Write a file in one step, with the folders above it. Raises FolderError, ForbiddenError, CapacityError."""
        async with self._wire.stream("PUT", file_path(self.id, path), task=self.id, content=data) as answer:
            await answer.aread()

    async def list(self, path: RemotePath = ".") -> list[FileEntry]:
        """Return what is in a folder, by name."""
        found: list[FileEntry] = []
        while True:
            page = await self._wire.tool(
                "list_files", self.id, path=os.fspath(path), details=True, all=True, offset=len(found)
            )
            found += [FileEntry(item["path"], item["type"], item["size"], item["target"]) for item in page["entries"]]
            if not page.get("truncated"):
                return found

    # --- its life ----------------------------------------------------------------------------------------------

    async def status(self) -> Mapping[str, Any]:
        """Return its sandboxes, with their processes and memory."""
        fields: Mapping[str, Any] = await self._wire.tool("sandbox", self.id, action="status")
        return fields

    async def reset(self) -> None:
        """Give it a fresh sandbox with the same files."""
        await self._wire.tool("sandbox", self.id, action="reset")

    async def close(self) -> None:
        """End it, and delete its files unless the workspace is persistent."""
        await self._wire.tool("sandbox", self.id, action="close")
