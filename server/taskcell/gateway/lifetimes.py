"""The labels of tasks, by which their clients find them, and their lifetimes, at whose end a task is closed."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

import anyio
import anyio.to_thread
import structlog

from taskcell.deployment.opened import KEPT_FOR, OpenedTasks, Opening
from taskcell.errors import NoRoom, TaskcellError
from taskcell.model import TaskKey
from taskcell.pool.pool import Pool

log = structlog.get_logger(__name__)

#: Seconds of a lifetime at most: what a task was opened with is remembered for that long.
MAX_LIFETIME = KEPT_FOR
#: Tasks of one principal that have labels or a lifetime; each is a small file.
MAX_LABELLED = 10_000
#: Seconds between two looks at what servers that died have left, and until an end is tried again that failed.
RESCAN = 30.0


class Lifetimes:
    """Notes them, and ends what is over. Where several servers may have a task, the one that has it ends it."""

    def __init__(self, opened: OpenedTasks, pool: Pool) -> None:
        self._opened = opened
        self._pool = pool
        self._known: dict[TaskKey, Opening] = {}
        self._changed = anyio.Event()

    async def note(self, task: TaskKey, labels: Mapping[str, str] | None, lifetime: float | None) -> Opening:
        """Give a task labels, and a lifetime from now on; None leaves what there is. Raises NoRoom."""
        await self._pool.of_task(task)  # what earlier servers know is known from then on
        others = sum(key.principal == task.principal for key in self._known)
        if task not in self._known and others >= MAX_LABELLED:
            raise NoRoom(f"You have {others} tasks with labels or a lifetime, the most; close some.")
        opening = await anyio.to_thread.run_sync(self._opened.find, task)
        opening = replace(
            opening,
            labels=opening.labels if labels is None else dict(labels),
            ends=opening.ends if lifetime is None else time.time() + lifetime,
        )
        opening = opening.counted(self._known.get(task))
        self._known[task] = opening
        await anyio.to_thread.run_sync(self._opened.note, task, opening)
        self._changed.set()
        return opening

    async def of(self, principal: str) -> Mapping[TaskKey, Opening]:
        """What is known of the principal's tasks."""
        await self._look()
        return {task: opening for task, opening in self._known.items() if task.principal == principal}

    async def _look(self) -> None:
        found = await anyio.to_thread.run_sync(self._opened.known)
        self._known = {task: opening.counted(self._known.get(task)) for task, opening in found.items()}

    async def run(self, close: Callable[[TaskKey], Awaitable[object]]) -> None:
        """End tasks in time, until this is cancelled.

        Arguments:
            close: closes a task, and says why in its next answer.
        """
        await self._pool.begun.wait()
        while True:
            self._changed = anyio.Event()
            await self._look()
            for task, opening in [(task, one) for task, one in self._known.items() if one.seconds_left == 0]:
                await self._end(task, opening, close)
            left = [left for one in self._known.values() if (left := one.seconds_left)]
            with anyio.move_on_after(min([RESCAN, *left])):
                await self._changed.wait()

    async def _end(self, task: TaskKey, known: Opening, close: Callable[[TaskKey], Awaitable[object]]) -> None:
        try:
            if (await self._pool.holder(task)).door is not None:
                return
            if (await anyio.to_thread.run_sync(self._opened.find, task)).ends == known.ends:  # it was not prolonged
                log.info("A task's lifetime is over.", task=task.task)
                await close(task)
        except TaskcellError as error:
            log.warning("A task whose lifetime is over was not closed; it is tried again.", reason=str(error))
        except Exception:  # whatever it is: the other tasks' ends go on
            log.exception("a task whose lifetime is over was not closed")
