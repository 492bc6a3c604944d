"""What the answers to a task's next calls have to say: how its last sandboxes ended, and what was found of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import anyio

from taskcell.deployment.records import NoteRecord
from taskcell.model import TaskKey
from taskcell.pool.slot import SlotKey

#: Endings that are kept for the next call of their task; each takes a few hundred bytes.
MAX_REMEMBERED = 10_000
#: The newest of them that a later server is to know as well; they are written down at each change.
MAX_WRITTEN = 1_000
CHANGED = "The sandbox was replaced because its configuration changed"

K = TypeVar("K")
V = TypeVar("V")


class Endings:
    """Remembers the MAX_REMEMBERED newest endings, one for each task and profile, and as many tasks' sentences."""

    def __init__(self) -> None:
        self._ended: dict[SlotKey, str] = {}
        self._found: dict[TaskKey, tuple[str, ...]] = {}
        self._telling: list[tuple[TaskKey, tuple[str, ...]]] = []

    def remember(self, key: SlotKey, ended: str) -> None:
        """Keep an ending. `ended` continues the words "The task's sandbox"."""
        _keep(self._ended, key, ended)

    def take(self, key: SlotKey) -> str:
        """The ending, for the successor's first answer; empty when there is none."""
        return self._ended.pop(key, "")

    def tell(self, task: TaskKey, sentence: str) -> None:
        """Keep a sentence for the task's next answer; one that is kept already is not said twice."""
        told = self._found.get(task, ())
        if sentence not in told:
            _keep(self._found, task, (*told, sentence))

    def take_back(self, task: TaskKey, sentence: str) -> None:
        """Do not say the sentence any more."""
        self._found[task] = tuple(told for told in self._found.get(task, ()) if told != sentence)

    def take_told(self, task: TaskKey) -> tuple[str, ...]:
        """The task's sentences, for its next answer."""
        return self._found.pop(task, ())

    @contextmanager
    def telling(self, task: TaskKey, notes: Iterable[str]) -> Iterator[None]:
        """While a call runs whose answer is to say the notes, a later server is to know them as well.

        A call that is cancelled has no answer: the next call's answer says them.
        """
        told = task, tuple(notes)
        self._telling.append(told)
        try:
            yield
        except anyio.get_cancelled_exc_class():
            for note in told[1]:
                self.tell(task, note)
            raise
        finally:
            self._telling.remove(told)

    def forget(self, task: TaskKey) -> None:
        """The task was closed on purpose: no later answer needs to say how its sandboxes ended."""
        for key in [key for key in self._ended if key[0] == task]:
            del self._ended[key]

    # --- what a later server is to know ------------------------------------------------------------------------------

    def records(self) -> list[NoteRecord]:
        """The newest, which a server that is killed leaves to the next one."""
        sentences = [*self._found.items(), *self._telling]
        told = [NoteRecord(task.principal, task.task, "", text) for task, texts in sentences for text in texts]
        ended = [NoteRecord(task.principal, task.task, profile, text) for (task, profile), text in self._ended.items()]
        return [*told[-MAX_WRITTEN:], *ended[-MAX_WRITTEN:]]

    def restore(self, records: Iterable[NoteRecord]) -> None:
        """Keep what an earlier server had not said."""
        for record in records:
            task = TaskKey(record.principal, record.task)
            if record.profile:
                self.remember((task, record.profile), record.text)
            else:
                self.tell(task, record.text)


def _keep(kept: dict[K, V], key: K, value: V) -> None:
    kept[key] = value
    while len(kept) > MAX_REMEMBERED:
        del kept[next(iter(kept))]


def how_ended(ended: str, *, kept_files: bool) -> str:
    """The sentence for the answer. `kept_files`: the successor's workspace is the one that the task had before."""
    if ended == CHANGED:
        return f"{ended}; {'the workspace is the same' if kept_files else 'the files in the workspace are lost'}."
    files = (
        "the files in the workspace are still there" if kept_files else "the files that were in the workspace are lost"
    )
    return f"The task's sandbox {ended} and was replaced by a fresh one; {files}."
