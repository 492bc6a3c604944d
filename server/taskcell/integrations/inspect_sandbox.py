"""A sandbox provider of Inspect: each sample has a task, whose sandbox runs its commands and holds its files."""

from __future__ import annotations

import logging
import os
import secrets
import shlex
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any, Literal, overload

import anyio
import anyio.to_thread
from inspect_ai.util import (
    ExecResult,
    OutputLimitExceededError,
    SandboxConnection,
    SandboxEnvironment,
    SandboxEnvironmentConfigType,
    SandboxEnvironmentLimits,
    SandboxUnavailableError,
    SandboxUserUnsupportedError,
    sandboxenv,
)
from pydantic import BaseModel

from taskcell.client import connect
from taskcell.client.failures import (
    CapacityError,
    CellError,
    DeniedError,
    EngineFailedError,
    ForbiddenError,
    LostError,
    NotFoundError,
    TooLargeError,
)
from taskcell.client.process import Done
from taskcell.client.task import Task
from taskcell.integrations.exact_files import SCRIPT_ENV, check_script, reading, writing
from taskcell.integrations.output_tail import OutputTail
from taskcell.integrations.shared_server import shared_server

#: Samples at once where Inspect is not given `--max-sandboxes`: half of what a server holds by default (`max_sandboxes`
#: of `[pool]`), so that a sample's sandbox never makes room for another's.
SAMPLES_AT_ONCE = 16
#: Seconds to close a sample's task; its server closes it all the same when it ends.
SAMPLE_CLOSE_TIMEOUT = 60.0
_WITH_WORDS = 'mapfile -d "" -t words < "$1" && rm -f -- "$1" && exec "${words[@]}"'
_logger = logging.getLogger(__name__)


class TaskcellSandboxConfig(BaseModel, frozen=True):
    """What a sandbox is made of. It is part of Inspect's logs, so a token comes from `TASKCELL_TOKEN` alone."""

    image: str | None = None
    """The task's image, as far as the server's policy (`task_images`) allows it."""
    environment: str | None = None
    """A table `[environments.NAME]` of the server's configuration."""
    working_dir: str = "/workspace"
    config: str | None = None
    """The configuration file of the server that is started where none is named."""
    door: str | None = None
    """The socket of a server on this machine."""
    url: str | None = None
    """A server over HTTP."""


@dataclass(frozen=True)
class _Call:
    """A command, with its input; `cwd` absolute or from the working folder, `timeout` in seconds."""

    words: list[str]
    data: bytes = b""
    cwd: str | None = None
    env: dict[str, str] = field(default_factory=dict)
    user: str | None = None
    timeout: float | None = None


@sandboxenv(name="taskcell")
class TaskcellSandbox(SandboxEnvironment):
    """What `sandbox="taskcell"` makes. `sandbox=("taskcell", "taskcell.toml")` names the server's configuration."""

    def __init__(self, task: Task, settings: TaskcellSandboxConfig, held: AsyncExitStack) -> None:
        super().__init__()
        self.task = task
        self._settings = settings
        self._held = held

    # --- its life ----------------------------------------------------------------------------------------------

    @classmethod
    def default_concurrency(cls) -> int | None:
        return SAMPLES_AT_ONCE

    @classmethod
    def config_files(cls) -> list[str]:
        return ["taskcell.toml"]

    @classmethod
    def config_deserialize(cls, config: dict[str, Any]) -> BaseModel:
        return TaskcellSandboxConfig.model_validate(config)

    @classmethod
    async def task_init(cls, task_name: str, config: SandboxEnvironmentConfigType | None) -> None:
        """Start the server, so that no sample's time counts for it. Raises CellError, ValueError."""
        await _door(_settings(config))

    @classmethod
    async def sample_init(
        cls, task_name: str, config: SandboxEnvironmentConfigType | None, metadata: dict[str, str]
    ) -> dict[str, SandboxEnvironment]:
        """Open a task. Raises CellError, ValueError."""
        settings = _settings(config)
        async with AsyncExitStack() as opening:
            door = await _door(settings)
            token = os.environ.get("TASKCELL_TOKEN")
            cell = await opening.enter_async_context(connect(settings.url, token=token, door=door))
            name = f"inspect-{secrets.token_hex(6)}"
            task = await cell.open(name, image=settings.image, environment=settings.environment)
            opening.push_async_callback(task.close)
            return {"default": cls(task, settings, opening.pop_all())}
        raise AssertionError("unreachable: nothing in the stack suppresses an exception")

    @classmethod
    async def sample_cleanup(
        cls,
        task_name: str,
        config: SandboxEnvironmentConfigType | None,
        environments: dict[str, SandboxEnvironment],
        interrupted: bool,
    ) -> None:
        """Close the sample's task, in an interrupted run, too."""
        for environment in environments.values():
            with anyio.move_on_after(SAMPLE_CLOSE_TIMEOUT, shield=True):
                try:
                    await environment.as_type(TaskcellSandbox)._held.aclose()
                except CellError as error:
                    _logger.warning("The task of a sample could not be closed: %s", error)

    async def connection(self, *, user: str | None = None) -> SandboxConnection:
        """Return the command line that opens a shell in the sandbox. Raises NotImplementedError, ConnectionError."""
        if user is not None or self._settings.url is not None:
            raise NotImplementedError("A shell is opened as the sandbox's own user, on the server's machine.")
        words = ["taskcell", "shell", self.task.id]
        words += ["--config", self._settings.config] if self._settings.config else []
        return SandboxConnection(type="taskcell", command=shlex.join(words))

    # --- what a sample does ------------------------------------------------------------------------------------

    async def exec(  # noqa: PLR0917 - Inspect's
        self,
        cmd: list[str],
        input: str | bytes | None = None,
        cwd: str | None = None,
        env: dict[str, str] | None = None,
        user: str | None = None,
        timeout: int | None = None,  # noqa: ASYNC109 - the supervisor's, which kills the command
        timeout_retry: bool = True,
        concurrency: bool = True,
    ) -> ExecResult[str]:
        """As the base class says. Of longer output the end is kept, and no command is ever run twice."""
        limit = SandboxEnvironmentLimits.MAX_EXEC_OUTPUT_SIZE
        try:
            done = await self._run(_Call(cmd, _bytes(input), cwd, env or {}, user, timeout), OutputTail(limit))
        except (DeniedError, ForbiddenError) as error:
            if getattr(error, "rule", "") == "task-users":
                raise SandboxUserUnsupportedError(str(error)) from error
            raise PermissionError(str(error)) from error
        except CellError as error:
            return ExecResult(False, 127 if isinstance(error, NotFoundError) else 126, "", f"{error}\n")
        out, err = done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")
        if done.status == "timed_out":
            failure = TimeoutError(f"The command was killed after {timeout} seconds.")
            failure.truncated_output = out + err  # type: ignore[attr-defined]
            raise failure
        return ExecResult(done.ok, done.exit_code, out, err)

    async def write_file(self, file: str, contents: str | bytes) -> None:
        """As the base class says; OSError for what it has no exception for, such as a full workspace."""
        words = writing(self._path(file))
        kept = OutputTail(SandboxEnvironmentLimits.MAX_EXEC_OUTPUT_SIZE)
        check_script(file, await self._run(_Call(words, _bytes(contents), env=SCRIPT_ENV), kept))

    @overload
    async def read_file(self, file: str, text: Literal[True] = True) -> str: ...

    @overload
    async def read_file(self, file: str, text: Literal[False]) -> bytes: ...

    async def read_file(self, file: str, text: bool = True) -> str | bytes:
        """As the base class says."""
        limit = SandboxEnvironmentLimits.MAX_READ_FILE_SIZE
        kept = OutputTail(limit)
        done = await self._run(_Call(reading(self._path(file)), env=SCRIPT_ENV), kept)
        check_script(file, done)
        if kept.has_dropped:
            raise OutputLimitExceededError(SandboxEnvironmentLimits.MAX_READ_FILE_SIZE_STR, None)
        return done.stdout.decode("utf-8") if text else done.stdout

    async def _run(self, call: _Call, kept: OutputTail) -> Done:
        """Run a command. Raises SandboxUnavailableError, or the CellError of a command that cannot be."""
        try:
            return await self._started(call, kept)
        except TooLargeError:
            # Linux takes more arguments than a server does: bash reads them from a file, and becomes the program.
            file = f"/tmp/.taskcell-{secrets.token_hex(8)}"  # noqa: S108 - in the sandbox, which has one user
            await self.write_file(file, b"".join(_bytes(word) + b"\0" for word in call.words))
            return await self._started(replace(call, words=["bash", "-c", _WITH_WORDS, "bash", file]), kept)

    async def _started(self, call: _Call, kept: OutputTail) -> Done:
        cwd = self._path(call.cwd or ".")
        try:
            async with self.task.start(
                call.words, stdin=call.data, cwd=cwd, env=call.env, user=call.user, timeout=call.timeout
            ) as command:
                async for piece in command:
                    kept.add(piece)
                return kept.with_output(await command.wait())
        except (CapacityError, EngineFailedError, LostError) as error:
            raise SandboxUnavailableError(str(error)) from error

    def _path(self, path: str) -> str:
        return str(PurePosixPath(self._settings.working_dir, path))


def _settings(config: SandboxEnvironmentConfigType | None) -> TaskcellSandboxConfig:
    if config is None or isinstance(config, TaskcellSandboxConfig):
        return config or TaskcellSandboxConfig()
    if isinstance(config, str) and config.endswith(".toml"):
        return TaskcellSandboxConfig(config=config)
    raise ValueError(
        "taskcell cannot run a compose file or build a Dockerfile for a sandbox. Give the server's taskcell.toml, or a "
        "TaskcellSandboxConfig with the name of an image that is built."
    )


async def _door(settings: TaskcellSandboxConfig) -> Any:
    if settings.door or settings.url:
        return settings.door
    return await anyio.to_thread.run_sync(shared_server, settings.config)


def _bytes(data: str | bytes | None) -> bytes:
    return data.encode() if isinstance(data, str) else data or b""
