"""A deployment and a runtime of SWE-ReX over a task."""

from __future__ import annotations

import logging
import os
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import ConfigDict
from swerex.deployment.abstract import AbstractDeployment
from swerex.deployment.hooks.abstract import CombinedDeploymentHook, DeploymentHook
from swerex.exceptions import (
    CommandTimeoutError,
    DeploymentNotStartedError,
    DeploymentStartupError,
    NonZeroExitCodeError,
    SessionDoesNotExistError,
    SessionExistsError,
)
from swerex.runtime.abstract import (
    AbstractRuntime,
    BashAction,
    BashInterruptAction,
    BashObservation,
    CloseBashSessionRequest,
    CloseBashSessionResponse,
    CloseResponse,
    Command,
    CommandResponse,
    CreateBashSessionRequest,
    CreateBashSessionResponse,
    IsAliveResponse,
    ReadFileRequest,
    ReadFileResponse,
    UploadRequest,
    UploadResponse,
    WriteFileRequest,
    WriteFileResponse,
)
from swerex.utils.log import get_logger

from taskcell.client.failures import CellError
from taskcell.client.task import Task
from taskcell.integrations.bash_session import BashSession
from taskcell.integrations.exact_files import read_anywhere, write_anywhere
from taskcell.integrations.opened_task import CommandSettings, begin_task_async
from taskcell.integrations.sent_tree import send_tree

#: Seconds that a server may take to say that it lives, where the caller does not say.
ALIVE_TIMEOUT = 30.0


class TaskcellDeploymentConfig(CommandSettings):
    """What a deployment is made of; `type` is for configurations that choose one of several."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["taskcell"] = "taskcell"

    def get_deployment(self) -> TaskcellDeployment:
        return TaskcellDeployment.from_config(self)


class TaskcellRuntime(AbstractRuntime):
    """Runs commands, shells and files in a task. Of one command nothing lasts to the next but files.

    Arguments:
        cwd: where commands, shells and relative paths begin.
        env: variables of all of them.
    """

    def __init__(
        self,
        task: Task,
        *,
        cwd: str = "/workspace",
        env: dict[str, str] | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        self.task = task
        self._cwd, self._env = cwd, env or {}
        self._sessions: dict[str, BashSession] = {}
        self.logger = logger or get_logger("rex-runtime")

    async def is_alive(self, *, timeout: float | None = None) -> IsAliveResponse:  # noqa: ASYNC109 - SWE-ReX's
        """Say whether a command runs in the sandbox."""
        try:
            done = await self.task.run(["true"], timeout=timeout or ALIVE_TIMEOUT)
        except CellError as error:
            return IsAliveResponse(is_alive=False, message=str(error))
        return IsAliveResponse(is_alive=done.ok, message="" if done.ok else f"`true` has ended with {done.exit_code}.")

    # --- sessions ----------------------------------------------------------------------------------------------

    async def create_session(self, request: CreateBashSessionRequest) -> CreateBashSessionResponse:
        """Open a bash on a terminal. Raises SessionExistsError, CommandTimeoutError, CellError."""
        if request.session in self._sessions:
            raise SessionExistsError(f"session {request.session!r} already exists")
        session = self._sessions[request.session] = BashSession(self.task, request.session)
        try:
            output = await session.open(request.startup_source, request.startup_timeout, self._cwd, self._env)
        except BaseException:
            await self._forget(request.session)
            raise
        return CreateBashSessionResponse(output=output)

    async def run_in_session(self, action: BashAction | BashInterruptAction) -> BashObservation:
        """Run a command in a session, send it input, or interrupt it.

        Raises SessionDoesNotExistError, CommandTimeoutError, NonZeroExitCodeError, BashIncorrectSyntaxError, or
        SessionNotInitializedError when the shell has ended.
        """
        session = self._session(action.session)
        try:
            if isinstance(action, BashInterruptAction):
                return await session.interrupt(action)
            return await session.run(action)
        finally:
            if session.has_ended:
                await self._forget(action.session)

    async def close_session(self, request: CloseBashSessionRequest) -> CloseBashSessionResponse:
        """End a session, with everything that it started. Raises SessionDoesNotExistError."""
        self._session(request.session)
        await self._forget(request.session)
        return CloseBashSessionResponse()

    def _session(self, name: str) -> BashSession:
        if name not in self._sessions:
            raise SessionDoesNotExistError(f"session {name!r} does not exist")
        return self._sessions[name]

    async def _forget(self, name: str) -> None:
        await self._sessions.pop(name).close()

    # --- commands and files ------------------------------------------------------------------------------------

    async def execute(self, command: Command) -> CommandResponse:
        """Run a command beside all sessions. Raises CommandTimeoutError, NonZeroExitCodeError, CellError."""
        words = [command.command] if isinstance(command.command, str) else list(command.command)
        if command.shell:
            words = ["/bin/sh", "-c", *words]
        if command.merge_output_streams:
            words = ["/bin/sh", "-c", 'exec "$@" 2>&1', "sh", *words]
        cwd = str(Path(self._cwd, command.cwd or "."))
        done = await self.task.run(words, env=self._env | (command.env or {}), cwd=cwd, timeout=command.timeout)
        if done.status == "timed_out":
            raise CommandTimeoutError(f"Timeout ({command.timeout}s) exceeded while running command")
        out, err = (data.decode(errors="backslashreplace") for data in (done.stdout, done.stderr))
        if command.check and not done.ok:
            said = f"Command {command.command!r} failed with exit code {done.exit_code}."
            said += f" Stdout:\n{out!r}\nStderr:\n{err!r}"
            raise NonZeroExitCodeError(f"{command.error_msg}: {said}" if command.error_msg else said)
        return CommandResponse(stdout=out, stderr=err, exit_code=done.exit_code)

    async def read_file(self, request: ReadFileRequest) -> ReadFileResponse:
        """Return a file's text. Raises FileNotFoundError, IsADirectoryError, PermissionError, UnicodeDecodeError."""
        data = await read_anywhere(self.task, self._path(request.path))
        text = data.decode(request.encoding or "utf-8", request.errors or "strict")
        return ReadFileResponse(content=text)

    async def write_file(self, request: WriteFileRequest) -> WriteFileResponse:
        """Write a file, with the folders above it. Raises IsADirectoryError, PermissionError, OSError."""
        await write_anywhere(self.task, self._path(request.path), request.content.encode())
        return WriteFileResponse()

    async def upload(self, request: UploadRequest) -> UploadResponse:
        """Copy a file or folder of this machine to anywhere in the sandbox. Raises OSError, CellError."""
        await send_tree(self.task, Path(request.source_path), self._path(request.target_path))
        return UploadResponse()

    async def close(self) -> CloseResponse:
        """End all sessions. The task is its deployment's."""
        for name in list(self._sessions):
            await self._forget(name)
        return CloseResponse()

    def _path(self, path: str) -> str:
        return os.path.normpath(os.path.join(self._cwd, path))


class TaskcellDeployment(AbstractDeployment):
    """A task whose runtime is open between `start` and `stop`. Arguments are those of `TaskcellDeploymentConfig`."""

    def __init__(self, *, logger: logging.Logger | None = None, **settings: Any) -> None:
        self._config = TaskcellDeploymentConfig(**settings)
        self._runtime: TaskcellRuntime | None = None
        self._held = AsyncExitStack()
        self._hooks = CombinedDeploymentHook()
        self.logger = logger or get_logger("rex-deploy")

    @classmethod
    def from_config(cls, config: TaskcellDeploymentConfig) -> Self:
        made = cls()
        made._config = config
        return made

    def add_hook(self, hook: DeploymentHook) -> None:
        self._hooks.add_hook(hook)

    async def start(self, *args: Any, **more: Any) -> None:
        """Open the task. Raises DeploymentStartupError with the server's sentence."""
        if self._runtime is not None:
            return
        self._hooks.on_custom_step("Opening a task")
        try:
            task = await begin_task_async(self._config, "swerex", self._held)
        except CellError as error:
            raise DeploymentStartupError(str(error)) from error
        self._runtime = TaskcellRuntime(task, cwd=self._config.cwd, env=self._config.env, logger=self.logger)

    async def stop(self, *args: Any, **more: Any) -> None:
        """End the sessions, and close the task unless it was there before."""
        runtime, self._runtime = self._runtime, None
        if runtime is None:
            return
        with suppress(CellError):
            await runtime.close()
        try:
            await self._held.aclose()
        except CellError as error:
            self.logger.warning("The task could not be closed: %s", error)

    async def is_alive(self, *, timeout: float | None = None) -> IsAliveResponse:  # noqa: ASYNC109 - SWE-ReX's
        """As the runtime says. Raises DeploymentNotStartedError."""
        return await self.runtime.is_alive(timeout=timeout)

    @property
    def runtime(self) -> TaskcellRuntime:
        """The runtime. Raises DeploymentNotStartedError."""
        if self._runtime is None:
            raise DeploymentNotStartedError
        return self._runtime
