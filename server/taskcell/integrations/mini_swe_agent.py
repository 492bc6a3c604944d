"""An environment of mini-swe-agent: each has a task, whose sandbox runs the agent's commands."""

from __future__ import annotations

import os
import platform
import subprocess
import weakref
from contextlib import ExitStack
from typing import Any

from minisweagent.exceptions import Submitted
from minisweagent.utils.serialize import recursive_merge
from pydantic import Field

from taskcell.client.failures import CellError
from taskcell.client.process import Done
from taskcell.integrations.opened_task import CommandSettings, begin_task, end_task

#: The first line of output by which a command hands in its result; it is mini-swe-agent's.
SUBMIT = "COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"


class TaskcellEnvironmentConfig(CommandSettings):
    """What the section `environment` may say beside `environment_class`."""

    forward_env: list[str] = Field(default_factory=list)
    """Names of this process's variables that each command gets; those of `env` go before them."""
    timeout: float = 30
    """Seconds; a command is killed then, with everything that it started."""
    interpreter: list[str] = Field(default=["bash", "-lc"])
    """What runs a command, which is its last argument."""


class TaskcellEnvironment:
    """What `environment_class: taskcell.integrations.mini_swe_agent.TaskcellEnvironment` makes.

    Raises a CellError when there is no server, or it does not open the task.
    """

    def __init__(
        self, *, config_class: type[TaskcellEnvironmentConfig] = TaskcellEnvironmentConfig, **settings: Any
    ) -> None:
        self.config = config_class(**settings)
        held = ExitStack()
        self._task = begin_task(self.config, "minisweagent", held)
        # mini-swe-agent does not say when it is done with an environment.
        self._ended = weakref.finalize(self, end_task, held)

    @property
    def task_id(self) -> str:
        return self._task.id

    def execute(self, action: dict[str, Any], cwd: str = "", *, timeout: float | None = None) -> dict[str, Any]:
        """Run a command; nothing of it changes the next one but files. Raises Submitted when it hands in the result."""
        seconds = timeout or self.config.timeout
        forwarded = {name: os.environ[name] for name in self.config.forward_env if name in os.environ}
        command = action.get("command", "")
        try:
            done = self._task.run(
                # One pipe for both streams: what is written first is read first.
                ["sh", "-c", 'exec "$@" 2>&1', "sh", *self.config.interpreter, command],
                cwd=cwd or self.config.cwd,
                env=forwarded | self.config.env,
                timeout=seconds,
            )
        except CellError as error:
            return _failed("", error)
        output = done.stdout.decode("utf-8", "replace")
        if done.status == "timed_out":
            return _failed(output, subprocess.TimeoutExpired(command, seconds))
        _raise_submitted(output, done)
        return {"output": output, "returncode": done.exit_code, "exception_info": _ended_by(done)}

    def get_template_vars(self, **more: Any) -> dict[str, Any]:
        """Return what templates of prompts may name."""
        merged: dict[str, Any] = recursive_merge(self._settings(), platform.uname()._asdict(), more)
        return merged

    def serialize(self) -> dict[str, Any]:
        """Return what a trajectory says about this environment."""
        kind = f"{type(self).__module__}.{type(self).__qualname__}"
        return {"info": {"config": {"environment": self._settings(), "environment_type": kind}}}

    def cleanup(self) -> None:
        """Close the task, unless it was there before; otherwise done when nothing holds this environment any more."""
        self._ended()

    def _settings(self) -> dict[str, Any]:
        return self.config.model_dump(mode="json", exclude={"token"})


def _failed(output: str, error: Exception) -> dict[str, Any]:
    """What mini-swe-agent shows a model of a command that it has no exit code of."""
    return {
        "output": output,
        "returncode": -1,
        "exception_info": f"An error occurred while executing the command: {error}",
        "extra": {"exception_type": type(error).__name__, "exception": str(error)},
    }


def _ended_by(done: Done) -> str:
    if done.status == "oom_killed":
        return "The command was killed because the sandbox was out of memory."
    return "" if done.status == "exited" else f"The command did not end by itself: {done.status}."


def _raise_submitted(output: str, done: Done) -> None:
    first, _, submission = output.lstrip().partition("\n")
    if first.strip() != SUBMIT or not done.ok:
        return
    extra = {"exit_status": "Submitted", "submission": submission}
    raise Submitted({"role": "exit", "content": submission, "extra": extra})
