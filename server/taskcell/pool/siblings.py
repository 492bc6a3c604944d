"""Which task gets which of the sandboxes that dead servers left, where several of them had a task of one name."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from taskcell.deployment.records import SandboxRecord
from taskcell.model import TaskKey
from taskcell.schema.properties import MAX_TASK_ID


@dataclass(frozen=True, slots=True)
class Share:
    """Sandboxes with the same files, for one task.

    Arguments:
        task: the task that gets them; None when they are of no use to any.
        had: the task that they were made for.
        records: what was written about them, with `task` as their task.
    """

    task: TaskKey | None
    had: TaskKey
    records: tuple[SandboxRecord, ...]


def share_out(records: Iterable[SandboxRecord], taken: Collection[TaskKey]) -> list[Share]:
    """Give each task the files that were used last, and each of the others' a task of its own beside it.

    Files on disk are the same for all of a task's sandboxes: there, further sandboxes are of no use.

    Arguments:
        records: sandboxes of tasks, of any number of servers.
        taken: tasks that this server has sandboxes of.
    """
    groups: defaultdict[TaskKey, defaultdict[str, list[SandboxRecord]]] = defaultdict(lambda: defaultdict(list))
    for record in sorted(records, key=_last_used, reverse=True):
        groups[record.key][record.workspace or record.container].append(record)
    names = {*taken, *groups}
    shares = []
    for had, places in groups.items():
        for place in places.values():
            task: TaskKey | None = had
            if had in taken or place is not next(iter(places.values())):
                task = _beside(had, names) if place[0].is_in_memory else None
            if task is not None:
                names.add(task)
            own = task or had
            shares.append(Share(task, had, tuple(replace(record, task=own.task, adopted=True) for record in place)))
    return shares


def _last_used(record: SandboxRecord) -> float:
    """When it was used last; a sandbox in use is later than any."""
    return record.idle_since or float("inf")


def _beside(task: TaskKey, names: Collection[TaskKey]) -> TaskKey:
    """The first free name beside a task's: `TASK~2`, `TASK~3`, …"""
    for number in itertools.count(2):
        end = f"~{number}"
        found = TaskKey(task.principal, task.task[: MAX_TASK_ID - len(end)] + end)
        if found not in names:
            return found
    raise AssertionError
