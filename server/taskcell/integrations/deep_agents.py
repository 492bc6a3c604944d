"""A sandbox backend of LangChain's deep agents: each has a task, which runs commands and holds the agent's files."""

from __future__ import annotations

import asyncio
import posixpath
import weakref
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from deepagents.backends.protocol import ExecuteResponse, FileDownloadResponse, FileUploadResponse
from deepagents.backends.sandbox import BaseSandbox
from pydantic import Field

from taskcell.client.failures import CellError
from taskcell.client.process import Done
from taskcell.client.task import Task
from taskcell.integrations.exact_files import read_anywhere, write_anywhere
from taskcell.integrations.opened_task import CommandSettings, begin_task, end_task
from taskcell.integrations.output_tail import OutputTail

#: Bytes of a command's output that are kept, so that a command that writes without end does not fill this process.
#: deepagents asks for lists of files and matches by commands, which have to come whole.
OUTPUT_LIMIT = 16 << 20
#: The exit code of a command that was killed at its time-out, as coreutils' `timeout` has it.
_TIMED_OUT = 124
P = ParamSpec("P")
R = TypeVar("R")


class TaskcellBackendSettings(CommandSettings, extra="forbid"):
    """What `TaskcellBackend` takes."""

    timeout: float = 120
    """Seconds where a call names none, as in deepagents' own shell; a command is killed then. 0: never."""
    interpreter: list[str] = Field(default=["bash", "-c"])
    """What runs a command, which is its last argument."""


class TaskcellBackend(BaseSandbox):
    """What `create_deep_agent(backend=TaskcellBackend(...))` takes: its arguments are those of the settings.

    The task is closed by `close`, at the end of a `with` block, or when nothing holds the backend any more. Raises a
    CellError when there is no server, or it does not open the task.
    """

    def __init__(self, **settings: Any) -> None:
        self._settings = TaskcellBackendSettings(**settings)
        held = ExitStack()
        self._task = begin_task(self._settings, "deepagents", held)
        self._ended = weakref.finalize(self, end_task, held)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def id(self) -> str:
        return self._task.id

    def close(self) -> None:
        """Close the task, unless it was there before."""
        self._ended()

    # Each pair is one coroutine: waited for, or awaited. A call that is cancelled has its command killed.

    def execute(self, command: str, *, timeout: int | None = None) -> ExecuteResponse:
        """Run a command with both streams in one. Files last to the next one, and nothing else."""
        return self._waited(self._execute, command, timeout)

    async def aexecute(self, command: str, *, timeout: int | None = None) -> ExecuteResponse:  # noqa: ASYNC109
        return await self._awaited(self._execute, command, timeout)

    def upload_files(self, files: list[tuple[str, bytes]]) -> list[FileUploadResponse]:
        """Write files anywhere that the sandbox's user may, one after the other."""
        return self._waited(self._upload, files)

    async def aupload_files(self, files: list[tuple[str, bytes]]) -> list[FileUploadResponse]:
        return await self._awaited(self._upload, files)

    def download_files(self, paths: list[str]) -> list[FileDownloadResponse]:
        """Read files, one after the other."""
        return self._waited(self._download, paths)

    async def adownload_files(self, paths: list[str]) -> list[FileDownloadResponse]:
        return await self._awaited(self._download, paths)

    def _waited(self, method: Callable[P, Awaitable[R]], *args: P.args, **named: P.kwargs) -> R:
        return self._task.portal.call(partial(method, *args, **named))

    async def _awaited(self, method: Callable[P, Awaitable[R]], *args: P.args, **named: P.kwargs) -> R:
        return await asyncio.wrap_future(self._task.portal.start_task_soon(partial(method, *args, **named)))

    async def _execute(self, command: str, timeout: float | None) -> ExecuteResponse:  # noqa: ASYNC109
        seconds = self._settings.timeout if timeout is None else timeout
        if seconds < 0:
            raise ValueError(f"The time-out is {seconds} seconds; give 0 for none, or more.")
        kept = OutputTail(OUTPUT_LIMIT)
        # One pipe for both streams: what is written first is read first.
        words = ["sh", "-c", 'exec "$@" 2>&1', "sh", *self._settings.interpreter, command]
        task: Task = self._task.inner
        try:
            async with task.start(
                words, cwd=self._settings.cwd, env=self._settings.env, timeout=seconds or None
            ) as running:
                async for piece in running:
                    kept.add(piece)
                done = kept.with_output(await running.wait())
        except CellError as error:
            return ExecuteResponse(f"Error: {error}", exit_code=1)
        said = done.stdout.decode("utf-8", "replace") + _how(done, seconds)
        code = _TIMED_OUT if done.status == "timed_out" else done.exit_code
        return ExecuteResponse(said, exit_code=code, truncated=kept.has_dropped)

    async def _upload(self, files: list[tuple[str, bytes]]) -> list[FileUploadResponse]:
        responses = []
        for path, data in files:
            _, error = await _tried(path, partial(write_anywhere, self._task.inner, path, data))
            responses.append(FileUploadResponse(path, error))
        return responses

    async def _download(self, paths: list[str]) -> list[FileDownloadResponse]:
        responses = []
        for path in paths:
            content, error = await _tried(path, partial(read_anywhere, self._task.inner, path))
            responses.append(FileDownloadResponse(path, content, error))
        return responses


async def _tried(path: str, method: Callable[[], Awaitable[R]]) -> tuple[R | None, str | None]:
    """Return what a method returns, or deepagents' word for why it does not."""
    if not posixpath.isabs(path) or "\0" in path:
        return None, "invalid_path"
    try:
        return await method(), None
    except FileNotFoundError:
        return None, "file_not_found"
    except IsADirectoryError:
        return None, "is_directory"
    except PermissionError:
        return None, "permission_denied"
    except (CellError, OSError) as error:
        return None, str(error)


def _how(done: Done, seconds: float) -> str:
    """What a model reads beside the output of a command that did not end by itself."""
    if done.status == "exited":
        return ""
    if done.status == "timed_out":
        return f"\nError: The command was killed after {seconds:g} seconds, with everything that it started."
    if done.status == "oom_killed":
        return "\nError: The command was killed because the sandbox was out of memory."
    return f"\nError: The command did not end by itself: {done.status}."
