"""One task of a server: its commands, its files, its end."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taskcell.client import files, repository
from taskcell.client.failures import CellError, FolderError
from taskcell.client.forward import Forward, forwarded
from taskcell.client.process import BytesLike, CommandLine, Done, RunningCommand, Stdin, exact_bytes, started
from taskcell.client.shell import Shell, opened_shell
from taskcell.client.wire import PathLike, ServerClient, file_path

#: A file's path: from the workspace, or absolute below `/workspace`.
RemotePath = str | bytes | PathLike


@dataclass(frozen=True, slots=True)
class FileEntry:
    """What a folder has. `kind` is `file`, `folder`, `link` or `other`; `size` of a file, in bytes."""

    name: str
    kind: str
    size: int | None
    target: str | None


def _forget(error: CellError) -> None:
    """What a caller does who sees that connections are reset."""


def _ignore(sentence: str) -> None:
    """What a caller does who does not ask what was left out."""


def _surroundings(env: Mapping[str, str] | None, user: str | None, cwd: RemotePath | None) -> dict[str, Any]:
    return {"env": dict(env or {}), "user": user, "cwd": None if cwd is None else os.fsdecode(cwd)}


class Task:
    """A task. Its sandbox is made at its first command, and serves until `close`, or its server's limits say so."""

    def __init__(self, wire: ServerClient, task_id: str) -> None:
        self._wire = wire
        self.id = task_id

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id!r}>"

    # --- commands ----------------------------------------------------------------------------------------------

    async def run(
        self,
        command: CommandLine,
        *,
        stdin: Stdin = b"",
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        cwd: RemotePath | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the supervisor's, which kills the command
    ) -> Done:
        """Run a command to its end. Nothing of one run changes the next, but for files.

        Raises a CellError if it did not start, or its sandbox was lost. Its exit code is never an error: see `check`.

        Arguments:
            command: a line for the task's shell, or a program and its arguments, which no shell sees.
            stdin: all of its standard input, or an iterable of its pieces, such as a file that is read.
            env: variables for it alone.
            user: whom it runs as, as far as the task's environment allows that.
            cwd: its folder, absolute or from the workspace.
            timeout: seconds; it is killed then, with everything that it started. None: never.
        """
        about = {**_surroundings(env, user, cwd), "timeout": timeout}
        async with started(self._wire, self.id, command, stdin, about) as process:
            return await process.wait()

    @asynccontextmanager
    async def start(
        self,
        command: CommandLine,
        *,
        stdin: Stdin | None = b"",
        env: Mapping[str, str] | None = None,
        user: str | None = None,
        cwd: RemotePath | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the supervisor's, which kills the command
    ) -> AsyncIterator[RunningCommand]:
        """Start a command whose output is read as it comes. It is killed when the block is left before it has ended.

        Arguments:
            stdin: as in `run`; None keeps it open for `write` and `close_stdin`.
        """
        about = {**_surroundings(env, user, cwd), "timeout": timeout}
        async with started(self._wire, self.id, command, stdin, about) as process:
            yield process

    @asynccontextmanager
    async def shell(
        self,
        name: str = "main",
        *,
        env: Mapping[str, str] | None = None,
        cwd: RemotePath | None = None,
        user: str | None = None,
    ) -> AsyncIterator[Shell]:
        """Open a bash that keeps functions, variables, folder, `umask` and options from one command to the next.

        Any number may be open for a task, each under a name of its own. It is killed, with everything that it started,
        when the block is left. Raises ArgumentError when the name is taken.
        """
        async with opened_shell(self._wire, self.id, name, _surroundings(env, user, cwd)) as shell:
            yield shell

    # --- files -------------------------------------------------------------------------------------------------

    async def read_bytes(self, path: RemotePath) -> bytes:
        """Return a file's bytes. Raises NotFoundError, FolderError, ForbiddenError."""
        async with self._wire.stream("GET", file_path(self.id, path), task=self.id) as answer:
            if answer.headers.get("x-taskcell-kind") == "folder":
                raise FolderError(f"{os.fsdecode(path)!r} is a folder; download it.")
            return await answer.aread()

    async def write_bytes(self, path: RemotePath, data: BytesLike) -> None:
        """Write a file in one step, with the folders above it. Raises FolderError, ForbiddenError, CapacityError."""
        content = exact_bytes(data)
        async with self._wire.stream("PUT", file_path(self.id, path), task=self.id, content=content) as answer:
            await answer.aread()

    async def upload(
        self, source: str | os.PathLike[str], target: RemotePath, *, left_out: Callable[[str], None] = _ignore
    ) -> None:
        """Copy a file or folder of this machine into the workspace, where it becomes `target`.

        Links in it stay links; modes and times are kept, owners are not. A folder is merged into one that is there.

        Arguments:
            left_out: called with a sentence about each device, pipe or socket, which are not copied.
        """
        await files.upload(self._wire, self.id, Path(source), os.fsdecode(target), left_out)

    async def download(
        self, source: RemotePath, target: str | os.PathLike[str], *, left_out: Callable[[str], None] = _ignore
    ) -> None:
        """Copy a file or folder of the workspace to this machine, where it becomes `target`.

        Nothing of it is written anywhere else, whatever the sandbox sends.

        Arguments:
            left_out: called with a sentence about each link that leads out of what is copied.
        """
        await files.download(self._wire, self.id, os.fsdecode(source), Path(target), left_out)

    async def upload_repository(self, source: str | os.PathLike[str], target: RemotePath = ".") -> None:
        """Copy a git repository with its history and working tree, and note what it holds for `diff`.

        Raises CommandFailed when git is not in the sandbox, or does not take it for a repository, and ArgumentError for
        a linked worktree or a submodule.
        """
        repository.check_source(source)
        await self.upload(source, target)
        await repository.note(self, target)

    async def diff(self, path: RemotePath = ".") -> bytes:
        """Return what has changed in a repository since `upload_repository`, committed or not, new files too.

        It is a patch for `git apply` in the working tree that was uploaded. Raises CommandFailed.
        """
        return await repository.patch(self, path)

    async def list(self, path: RemotePath = ".") -> list[FileEntry]:
        """Return what is in a folder, by name."""
        found: list[FileEntry] = []
        while True:
            page = await self._wire.tool(
                "list_files", self.id, path=os.fsdecode(path), details=True, all=True, offset=len(found)
            )
            found += [FileEntry(item["path"], item["type"], item["size"], item["target"]) for item in page["entries"]]
            if not page.get("truncated"):
                return found

    # --- ports -------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def forward(
        self, port: int, *, local_port: int = 0, on_error: Callable[[CellError], None] = _forget
    ) -> AsyncIterator[Forward]:
        """Reach what listens on a port in its sandbox at a port of this machine's loopback, while the block runs.

        Raises ArgumentError when the local port is not free.

        Arguments:
            local_port: 0 takes a free one.
            on_error: called when a connection is not opened, as nothing listens there; it is reset.
        """
        async with forwarded(self._wire, self.id, port, local_port, on_error) as forward:
            yield forward

    # --- its life ----------------------------------------------------------------------------------------------

    async def status(self) -> Mapping[str, Any]:
        """Return its sandboxes, with their processes and memory."""
        fields: Mapping[str, Any] = await self._wire.tool("sandbox", self.id, action="status")
        return fields

    async def reset(self) -> None:
        """Give it a fresh sandbox with the same files."""
        await self._wire.tool("sandbox", self.id, action="reset")

    async def snapshot(self, name: str) -> None:
        """Keep its files under a name, from which tasks are made."""
        await self._wire.tool("sandbox", self.id, action="snapshot", name=name)

    async def restore(self, name: str) -> None:
        """End what runs, and put a snapshot's files in the place of its own. Raises NotFoundError."""
        await self._wire.tool("sandbox", self.id, action="restore", name=name)

    async def fork(self, to: str) -> Task:
        """Make the task `to` with the same files, and return it. Processes and shells are not copied."""
        await self._wire.tool("sandbox", self.id, action="fork", to=to)
        return Task(self._wire, to)

    async def close(self) -> None:
        """End it, and delete its files unless the workspace is persistent."""
        await self._wire.tool("sandbox", self.id, action="close")
