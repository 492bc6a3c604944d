"""What the server remembers of a task's files: what the task has seen of them, and how to undo the last change."""

from __future__ import annotations

import zlib
from collections import OrderedDict
from dataclasses import dataclass
from weakref import WeakValueDictionary

import anyio

from taskcell.files.reply import Where
from taskcell.model import MIB, TaskKey

#: Tasks and files of one task that are remembered; those that were used least lately are forgotten first.
MAX_TASKS, MAX_FILES = 1000, 500
#: Bytes that one change may have removed, and those of one task and of all, so that they can be put back.
MAX_UNDO, MAX_UNDO_OF_TASK, MAX_UNDO_OF_ALL = 4 * MIB, 16 * MIB, 64 * MIB


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What tells one content of a file from another: its size in bytes and its CRC-32."""

    size: int
    crc: int

    @classmethod
    def of(cls, data: bytes) -> Fingerprint:
        return cls(len(data), zlib.crc32(data))

    def __str__(self) -> str:
        return f"{self.size}:{self.crc}"


@dataclass(frozen=True, slots=True)
class Undo:
    """Turns the content after a change into the one before it: `removed` in the place of `size` bytes at `start`."""

    after: Fingerprint
    start: int
    size: int
    removed: bytes

    @classmethod
    def between(cls, before: bytes, after: bytes) -> Undo:
        start = _common(before, after)
        tail = _common(before[start:][::-1], after[start:][::-1])
        return cls(Fingerprint.of(after), start, len(after) - tail - start, before[start : len(before) - tail])

    def apply(self, after: bytes) -> bytes:
        return after[: self.start] + self.removed + after[self.start + self.size :]


def _common(one: bytes, other: bytes) -> int:
    """Return how many bytes two contents have in common at their front."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


@dataclass(frozen=True, slots=True)
class _Change:
    """How to undo a change of a file."""

    where: Where
    undo: Undo


class _TaskFiles:
    """What is remembered of one task's files, the newest last; `size` is the bytes of its undos."""

    def __init__(self) -> None:
        self.seen: dict[str, tuple[Where, Fingerprint]] = {}
        self.changes: list[_Change] = []
        self.size = 0

    def keep(self, where: Where, undo: Undo) -> None:
        self.changes.append(_Change(where, undo))
        self.size += len(undo.removed)
        while len(self.changes) > MAX_FILES or self.size > MAX_UNDO_OF_TASK:
            self.drop(self.changes[0])

    def drop(self, change: _Change) -> None:
        self.changes.remove(change)
        self.size -= len(change.undo.removed)

    def last_change(self, where: Where) -> _Change | None:
        return next((change for change in reversed(self.changes) if change.where.is_that(where)), None)


class FileHistory:
    """What is remembered of the files of all tasks, bounded.

    A file is known by its real path, and by its identity under other names. It belongs to the event loop: no thread may
    use it.
    """

    def __init__(self) -> None:
        self._tasks: OrderedDict[TaskKey, _TaskFiles] = OrderedDict()
        self._locks: WeakValueDictionary[tuple[TaskKey, str], anyio.Lock] = WeakValueDictionary()

    def lock(self, task: TaskKey, path: str) -> anyio.Lock:
        """Return the lock under which a task's file is changed, so that each change sees the one before it."""
        lock = self._locks.get((task, path))
        if lock is None:
            lock = self._locks[task, path] = anyio.Lock()
        return lock

    def see(self, task: TaskKey, where: Where, content: Fingerprint | None) -> None:
        """Remember the content that the task has seen; None: it has seen a part, and nothing is known of the rest."""
        seen = self._of(task).seen
        seen.pop(where.path, None)
        if content is None:
            for path in [path for path, (known, _) in seen.items() if known.is_that(where)]:
                del seen[path]
            return
        seen[where.path] = (where, content)
        while len(seen) > MAX_FILES:
            del seen[next(iter(seen))]

    def seen(self, task: TaskKey, where: Where) -> Fingerprint | None:
        """Return the content that the task has seen last, under whatever name."""
        files = self._tasks.get(task)
        known = reversed(files.seen.values()) if files else ()
        return next((content for place, content in known if place.is_that(where)), None)

    def changed(self, task: TaskKey, where: Where, content: Fingerprint, undo: Undo | None) -> None:
        """Remember a change that the task made; `undo` None: it cannot be undone."""
        self.see(task, where, content)
        files = self._of(task)
        for change in [change for change in files.changes if change.where.is_that(where)]:
            files.drop(change)
        if undo is None or len(undo.removed) > MAX_UNDO:
            return
        files.keep(where, undo)
        total = sum(each.size for each in self._tasks.values())
        for oldest in self._tasks.values():
            while total > MAX_UNDO_OF_ALL and oldest.changes:
                total -= oldest.size
                oldest.drop(oldest.changes[0])
                total += oldest.size

    def last_change(self, task: TaskKey, where: Where) -> Undo | None:
        """Return how to undo the task's last change of a file."""
        files = self._tasks.get(task)
        change = files.last_change(where) if files else None
        return change.undo if change else None

    def forget(self, task: TaskKey) -> None:
        """Forget a task that has ended."""
        self._tasks.pop(task, None)

    def _of(self, task: TaskKey) -> _TaskFiles:
        files = self._tasks.setdefault(task, _TaskFiles())
        self._tasks.move_to_end(task)
        while len(self._tasks) > MAX_TASKS:
            self._tasks.popitem(last=False)
        return files
