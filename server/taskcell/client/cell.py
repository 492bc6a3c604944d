"""A connection to one server, and the tasks there."""

from __future__ import annotations

from dataclasses import dataclass

from taskcell.client.task import Task
from taskcell.client.wire import ServerClient


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """A task that has a sandbox. `profiles` are those of its sandboxes: `terminal`, an environment, or a skill."""

    id: str
    profiles: tuple[str, ...]


class Cell:
    """What `connect` yields."""

    def __init__(self, wire: ServerClient) -> None:
        self._wire = wire

    def task(self, task_id: str) -> Task:
        """Return a task by its name, without asking the server: its first command makes its sandbox."""
        return Task(self._wire, task_id)

    async def open(self, task_id: str, *, image: str | None = None, environment: str | None = None) -> Task:
        """Return a task, and start its sandbox if it is to have an image or environment of its own.

        Raises a CellError: the policy does not allow the image, or the task has another one.

        Arguments:
            image: as far as the server's policy (`task_images`) allows it.
            environment: a table `[environments.NAME]` of the server's configuration.
        """
        if image is not None or environment is not None:
            await self._wire.tool("sandbox", task_id, action="open", image=image, environment=environment)
        return self.task(task_id)

    async def tasks(self) -> list[TaskInfo]:
        """Return one's own tasks that have a sandbox at this server."""
        found = (await self._wire.json("GET", "/tasks"))["tasks"]
        return [TaskInfo(task["task_id"], tuple(held["profile"] for held in task["sandboxes"])) for task in found]
