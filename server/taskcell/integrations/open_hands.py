"""A workspace of OpenHands: its agent server runs in a task, and its port is reached on this machine."""

from __future__ import annotations

import os
import secrets
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import httpx
from openhands.sdk.logger import get_logger
from openhands.sdk.workspace import RemoteWorkspace
from openhands.sdk.workspace.models import CommandResult, FileOperationResult
from pydantic import Field, PrivateAttr

from taskcell.client import blocking
from taskcell.client.failures import CellError
from taskcell.integrations.exact_files import SCRIPT_ENV, check_script, reading, writing
from taskcell.integrations.opened_task import TaskSettings, begin_task, end_task

logger = get_logger(__name__)

#: What is kept of the agent server's output for an error, in bytes.
LOG_SHOWN = 2000
#: Seconds for one question whether the agent server is ready, and between two.
HEALTH_TIMEOUT, HEALTH_INTERVAL = 5.0, 1.0
#: Seconds for the thread that reads its output to see that it has ended.
READER_END_TIMEOUT = 10.0


class TaskcellWorkspace(RemoteWorkspace, TaskSettings):
    """A sandbox for conversations, as OpenHands' own `DockerWorkspace` is one. The task's image has the agent server.

    The agent server, with the agent and its tools, runs in the task. Commands and files of the workspace itself are
    those of taskcell: a command that takes too long is killed with everything that it started, and files have no limit
    but the sandbox's.

    Raises RuntimeError when the agent server does not become ready, and a CellError when there is no task for it.
    """

    working_dir: str = "/workspace"
    """Where commands and tools begin."""
    host: str = ""
    """Where the agent server is reached; set when it is ready."""
    api_key: str | None = Field(default=None, repr=False)
    """What it asks of those who reach it; None: a new one."""
    agent_server: list[str] = Field(default_factory=lambda: ["openhands-agent-server"])
    """The program in the image, with its first arguments; `--host` and `--port` follow."""
    agent_server_port: int = 8000
    """The port in the sandbox."""
    env: dict[str, str] = Field(default_factory=dict, repr=False)
    """Variables of the agent server and of commands."""
    forward_env: list[str] = Field(default_factory=list)
    """Names of variables of this process that they get, too."""
    start_timeout: float = Field(default=120.0, gt=0)
    """Seconds for the agent server to become ready."""

    _task: blocking.Task | None = PrivateAttr(default=None)
    _held: ExitStack = PrivateAttr(default_factory=ExitStack)
    _running: ExitStack | None = PrivateAttr(default=None)
    _log: bytearray = PrivateAttr(default_factory=bytearray)

    def model_post_init(self, context: Any) -> None:
        """Open the task, and start the agent server in it."""
        self.api_key = self.api_key or secrets.token_urlsafe(24)
        self._task = begin_task(self, "openhands", self._held)
        try:
            self.resume()
        except BaseException:
            self.cleanup()
            raise
        super().model_post_init(context)

    @property
    def task(self) -> blocking.Task:
        """The task. Raises RuntimeError when the workspace was cleaned up."""
        if self._task is None:
            raise RuntimeError("The workspace was cleaned up; make another one.")
        return self._task

    # --- the agent server --------------------------------------------------------------------------------------

    def pause(self) -> None:
        """End the agent server. Files and conversations stay, and taskcell may close the idle sandbox meanwhile."""
        running, self._running = self._running, None
        if running is not None:
            self.reset_client()
            running.close()

    def resume(self) -> None:
        """Start the agent server, unless it runs. Raises RuntimeError when it does not become ready, or a CellError."""
        if self._running is not None:
            return
        words = [*self.agent_server, "--host", "127.0.0.1", "--port", str(self.agent_server_port)]
        env = {**self._variables(), "OH_SESSION_API_KEYS_0": self.api_key or ""}
        with ExitStack() as starting:
            # Its own files lie beside the working folder's then, as in OpenHands' images.
            command = starting.enter_context(self.task.start(words, env=env, cwd="/"))
            reader = threading.Thread(target=self._read, args=(command,), name="taskcell-openhands-log", daemon=True)
            reader.start()
            forward = starting.enter_context(self.task.forward(self.agent_server_port))
            self.host = forward.url
            self.reset_client()
            self._wait_until_ready(reader)
            self._running = starting.pop_all()

    def _read(self, command: blocking.RunningCommand) -> None:
        """Take what the agent server writes: it waits for one who does."""
        self._log.clear()
        try:
            for piece in command:
                self._log[:] = (self._log + piece.data)[-LOG_SHOWN:]
        except CellError as error:
            logger.debug("The agent server's output has ended: %s", error)

    def _wait_until_ready(self, reader: threading.Thread) -> None:
        """Raises RuntimeError."""
        end = time.monotonic() + self.start_timeout
        while time.monotonic() < end:
            try:
                if httpx.get(f"{self.host}/health", timeout=HEALTH_TIMEOUT, trust_env=False).is_success:
                    return
            except httpx.HTTPError:
                reader.join(HEALTH_INTERVAL)
            if not reader.is_alive():
                raise RuntimeError(f"The agent server has ended: {self._said()}")
        raise RuntimeError(f"The agent server was not ready within {self.start_timeout:g} s: {self._said()}")

    def _said(self) -> str:
        return self._log.decode("utf-8", "replace").strip() or "it wrote nothing"

    def _variables(self) -> dict[str, str]:
        forwarded = {name: os.environ[name] for name in self.forward_env if name in os.environ}
        return forwarded | self.env

    # --- commands and files ------------------------------------------------------------------------------------

    def execute_command(self, command: str, cwd: str | Path | None = None, timeout: float = 30.0) -> CommandResult:
        """Run a line of bash beside the agent server. Arguments as OpenHands' own; a time-out kills all of it."""
        try:
            words = ["bash", "-c", command]
            done = self.task.run(words, cwd=self._path(cwd or "."), env=self._variables(), timeout=timeout)
        except CellError as error:
            said = f"Remote execution error: {error}"
            return CommandResult(command=command, exit_code=-1, stdout="", stderr=said, timeout_occurred=False)
        has_timed_out = done.status == "timed_out"
        stderr = done.stderr.decode("utf-8", "replace")
        return CommandResult(
            command=command,
            exit_code=-1 if has_timed_out else done.exit_code,
            stdout=done.stdout.decode("utf-8", "replace"),
            stderr=f"{stderr}Command timed out after {timeout} seconds" if has_timed_out else stderr,
            timeout_occurred=has_timed_out,
        )

    def file_upload(self, source_path: str | Path | bytes, destination_path: str | Path) -> FileOperationResult:
        """Write a file in the sandbox, with the folders above it. Arguments as OpenHands' own."""
        name = "upload" if isinstance(source_path, bytes) else str(source_path)
        target = self._path(destination_path)
        result = FileOperationResult(success=True, source_path=name, destination_path=target)
        try:
            data = source_path if isinstance(source_path, bytes) else Path(source_path).read_bytes()
            check_script(target, self.task.run(writing(target), stdin=data, env=SCRIPT_ENV))
        except (CellError, OSError) as error:
            return result.model_copy(update={"success": False, "error": str(error)})
        return result.model_copy(update={"file_size": len(data)})

    def file_download(self, source_path: str | Path, destination_path: str | Path) -> FileOperationResult:
        """Write a file of the sandbox to this machine, with the folders above it. Arguments as OpenHands' own."""
        source, target = self._path(source_path), Path(destination_path)
        result = FileOperationResult(success=True, source_path=source, destination_path=str(target))
        try:
            done = self.task.run(reading(source), env=SCRIPT_ENV)
            check_script(source, done)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(done.stdout)
        except (CellError, OSError) as error:
            return result.model_copy(update={"success": False, "error": str(error)})
        return result.model_copy(update={"file_size": len(done.stdout)})

    def _path(self, path: str | Path) -> str:
        return os.path.normpath(os.path.join(self.working_dir, path))

    # --- its end -----------------------------------------------------------------------------------------------

    def cleanup(self) -> None:
        """End the agent server, and close the task unless it was there before. Again, it does nothing."""
        task, self._task = self._task, None
        if task is None:
            return
        try:
            self.pause()
        except (CellError, RuntimeError) as error:
            logger.warning("The agent server could not be ended: %s", error)
        finally:
            end_task(self._held)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exc_type: Any, exc_val: Any, exc_tb: Any) -> None:
        try:
            super().__exit__(exc_type, exc_val, exc_tb)
        finally:
            self.cleanup()

    def __del__(self) -> None:
        if getattr(self, "__pydantic_private__", None) is not None:  # it was made whole
            self.cleanup()
