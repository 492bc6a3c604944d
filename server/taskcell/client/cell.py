"""A connection to one server, and the tasks there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from taskcell.client.task import Task
from taskcell.client.wire import ServerClient, task_path


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """A task that has a sandbox, or was opened with labels or a lifetime.

    Arguments:
        profiles: of its sandboxes: `terminal`, an environment, or a skill.
        ends_in: seconds until its lifetime is over; None: it has none.
    """

    id: str
    profiles: tuple[str, ...]
    labels: Mapping[str, str]
    ends_in: float | None


class Cell:
    """What `connect` yields."""

    def __init__(self, wire: ServerClient) -> None:
        self._wire = wire

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self._wire.address}>"

    def task(self, task_id: str) -> Task:
        """Return a task by its name, without asking the server: its first command makes its sandbox."""
        return Task(self._wire, task_id)

    async def open(
        self,
        task_id: str,
        *,
        image: str | None = None,
        environment: str | None = None,
        labels: Mapping[str, str] | None = None,
        lifetime: float | None = None,
    ) -> Task:
        """Return a task, and start its sandbox if it is to have an image or environment of its own.

        Opened again with labels or a lifetime, it has these from then on.

        Raises a CellError: the policy does not allow the image, or the task has another one.

        Arguments:
            image: as far as the server's policy (`task_images`) allows it.
            environment: a table `[environments.NAME]` of the server's configuration.
            labels: words by which `tasks` finds it; they live as long as the task.
            lifetime: seconds from now on; then the server closes it, whatever runs, as `close` does.
        """
        if labels is not None or lifetime is not None:
            terms = {"labels": None if labels is None else dict(labels), "lifetime": lifetime}
            await self._wire.json("PUT", task_path(task_id), terms, task=task_id)
        if image is not None or environment is not None:
            await self._wire.tool("sandbox", task_id, action="open", image=image, environment=environment)
        return self.task(task_id)

    async def tasks(self, labels: Mapping[str, str] | None = None) -> list[TaskInfo]:
        """Return one's own tasks that have a sandbox at this server, or were opened with labels or a lifetime.

        Arguments:
            labels: only tasks that have all of these.
        """
        query = urlencode([("label", f"{name}={value}") for name, value in (labels or {}).items()])
        found = (await self._wire.json("GET", "/tasks" + (f"?{query}" if query else "")))["tasks"]
        return [
            TaskInfo(
                task["task_id"], tuple(held["profile"] for held in task["sandboxes"]), task["labels"], task["ends_in_s"]
            )
            for task in found
        ]
