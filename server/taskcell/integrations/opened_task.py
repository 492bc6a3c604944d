"""The task that an adapter works in: which server, which task, and its end."""

from __future__ import annotations

import logging
import os
import secrets
from contextlib import AsyncExitStack, ExitStack
from typing import Any

import anyio.to_thread
from pydantic import BaseModel, Field, SecretStr

from taskcell.client import blocking, connect
from taskcell.client.failures import CellError
from taskcell.client.task import Task
from taskcell.integrations.shared_server import shared_server

_logger = logging.getLogger(__name__)


class TaskSettings(BaseModel):
    """What each adapter has settings for. Where no server is named, this process starts one for all of them."""

    image: str | None = None
    """The task's image, as far as the server's policy (`task_images`) allows it."""
    environment: str | None = None
    """A table `[environments.NAME]` of the server's configuration."""
    task_id: str | None = None
    """A task to go on with, which is not closed at the end. None: a new one."""
    config: str | None = None
    """The configuration file of the server that is started."""
    program: str | None = None
    """The program that is started as the server; None: that of this environment, or else the one on PATH."""
    door: str | None = None
    """The socket of a server on this machine."""
    url: str | None = None
    """A server over HTTP."""
    token: SecretStr | None = None
    """Its bearer token; None: `TASKCELL_TOKEN`."""

    def server(self) -> dict[str, Any]:
        """Return the arguments of `connect`, and start the server where none is named. Blocking. Raises CellError."""
        door = self.door if self.door or self.url else shared_server(self.config, self.program)
        token = self.token.get_secret_value() if self.token else os.environ.get("TASKCELL_TOKEN")
        return {"url": self.url, "door": door, "token": token}

    def task_name(self, framework: str) -> str:
        """Return the name of the task, which is a new one unless `task_id` says it."""
        return self.task_id or f"{framework}-{secrets.token_hex(6)}"


class CommandSettings(TaskSettings):
    """As `TaskSettings`, with where and how commands run."""

    cwd: str = "/workspace"
    """The folder of each command."""
    env: dict[str, str] = Field(default_factory=dict)
    """Variables of each command."""


def begin_task(settings: TaskSettings, framework: str, held: ExitStack) -> blocking.Task:
    """Open the task. Raises a CellError.

    Arguments:
        framework: what the names of new tasks begin with.
        held: closes a new task and the connection.
    """
    with ExitStack() as opening:
        cell = opening.enter_context(blocking.connect(**settings.server()))
        task = cell.open(settings.task_name(framework), image=settings.image, environment=settings.environment)
        if settings.task_id is None:
            opening.callback(task.close)
        held.push(opening.pop_all())
    return task


async def begin_task_async(settings: TaskSettings, framework: str, held: AsyncExitStack) -> Task:
    """As `begin_task`."""
    server = await anyio.to_thread.run_sync(settings.server)
    async with AsyncExitStack() as opening:
        cell = await opening.enter_async_context(connect(**server))
        task = await cell.open(settings.task_name(framework), image=settings.image, environment=settings.environment)
        if settings.task_id is None:
            opening.push_async_callback(task.close)
        held.push_async_exit(opening.pop_all())
    return task


def end_task(held: ExitStack) -> None:
    """Close the task and the connection. Its server ends it all the same where it cannot be asked any more."""
    try:
        held.close()
    except (CellError, RuntimeError) as error:
        _logger.warning("The task could not be closed: %s", error)
