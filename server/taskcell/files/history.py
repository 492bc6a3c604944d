"""What the server remembers of a task's files: what the task has seen of them, and how to undo the last change."""

from __future__ import annotations

import zlib
from collections import OrderedDict
from dataclasses import dataclass
from weakref import WeakValueDictionary

import anyio

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


class _TaskFiles:
    """What is remembered of one task's files; `size` is the bytes of its undos."""

    def __init__(self) -> None:
        self.seen: OrderedDict[str, Fingerprint] = OrderedDict()
        self.undo: OrderedDict[str, Undo] = OrderedDict()
        self.size = 0

    def keep(self, path: str, undo: Undo) -> None:
        self.undo[path] = undo
        self.size += len(undo.removed)
        while len(self.undo) > MAX_FILES or self.size > MAX_UNDO_OF_TASK:
            self.drop(next(iter(self.undo)))

    def drop(self, path: str) -> None:
        undo = self.undo.pop(path, None)
        self.size -= len(undo.removed) if undo else 0


class FileHistory:
    """What is remembered of the files of all tasks, bounded. Paths are those of the sandbox, as a call names them.

    It belongs to the event loop: no thread may use it.
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

    def see(self, task: TaskKey, path: str, content: Fingerprint | None) -> None:
        """Remember the content that the task has seen; None: it has seen a part, and nothing is known of the rest."""
        if content is None:
            self._of(task).seen.pop(path, None)
            return
        files = self._of(task)
        files.seen[path] = content
        files.seen.move_to_end(path)
        while len(files.seen) > MAX_FILES:
            files.seen.popitem(last=False)

    def seen(self, task: TaskKey, path: str) -> Fingerprint | None:
        """Return the content that the task has seen last."""
        files = self._tasks.get(task)
        return files.seen.get(path) if files else None

    def changed(self, task: TaskKey, path: str, content: Fingerprint, undo: Undo | None) -> None:
        """Remember a change that the task made; `undo` None: it cannot be undone."""
        self.see(task, path, content)
        files = self._of(task)
        files.drop(path)
        if undo is None or len(undo.removed) > MAX_UNDO:
            return
        files.keep(path, undo)
        total = sum(each.size for each in self._tasks.values())
        for oldest in self._tasks.values():
            while total > MAX_UNDO_OF_ALL and oldest.undo:
                total -= oldest.size
                oldest.drop(next(iter(oldest.undo)))
                total += oldest.size

    def last_change(self, task: TaskKey, path: str) -> Undo | None:
        """Return how to undo the task's last change of a file."""
        files = self._tasks.get(task)
        return files.undo.get(path) if files else None

    def forget(self, task: TaskKey) -> None:
        """Forget a task that has ended."""
        self._tasks.pop(task, None)

    def _of(self, task: TaskKey) -> _TaskFiles:
        files = self._tasks.setdefault(task, _TaskFiles())
        self._tasks.move_to_end(task)
        while len(self._tasks) > MAX_TASKS:
            self._tasks.popitem(last=False)
        return files
