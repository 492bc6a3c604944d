"""What new tasks begin with instead of nothing: the files of another task."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from taskcell.deployment.archives import ArchiveHead
from taskcell.model import TaskKey
from taskcell.sandbox.sandbox import Sandbox


@dataclass(slots=True)
class Filling:
    """What one new task begins with.

    Arguments:
        about: the folder and variables that its terminal starts with.
        fill: copies files into a new sandbox, and returns what to say about it. Raises EngineError.
        is_done: it has.
        notes: what to say about it.
    """

    about: ArchiveHead
    fill: Callable[[Sandbox], Awaitable[list[str]]]
    is_done: bool = False
    notes: list[str] = field(default_factory=list)


class Fillings(dict[TaskKey, Filling]):
    """By the new task."""

    @contextmanager
    def expecting(self, task: TaskKey, filling: Filling) -> Iterator[None]:
        """While this is entered, the task's first sandbox is filled before anything runs in it."""
        self[task] = filling
        try:
            yield
        finally:
            del self[task]
