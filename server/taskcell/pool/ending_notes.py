"""What the answers to a task's next calls have to say: how its last sandboxes ended, and what was found of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import anyio

from taskcell.deployment.records import NoteRecord
from taskcell.model import TaskKey
from taskcell.pool.slot import Slot, SlotKey
from taskcell.process.record import Record
from taskcell.sandbox.sandbox import Sandbox
from taskcell.text import shown

#: Endings that are kept for the next call of their task; each takes a few hundred bytes.
MAX_REMEMBERED = 10_000
#: The newest of them that a later server is to know as well; they are written down at each change.
MAX_WRITTEN = 1_000
#: Processes that a note on the end of a sandbox names.
MAX_NAMED = 4
PUT_BACK = "The task's last sandbox has gone; in this one {}. What ran in it does not run."
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

    def tell_ended(self, slot: Slot) -> None:
        """Keep a sentence on what runs in a slot that is to be closed."""
        named = _named_left(slot)
        if named:
            self.tell(slot.task, f"With the task's sandbox ended what still ran in it: {named}.")

    def tell_evicted(self, task: TaskKey, evicted: Iterable[Slot]) -> None:
        """Keep a sentence for the task that the slots were closed for, unless they were another principal's."""
        for slot in evicted:
            named = _named_left(slot) if slot.task.principal == task.principal else ""
            if named:
                ended = (
                    f"To make room, the sandbox of your task {shown(slot.task.task)} was closed, and with it {named}."
                )
                self.tell(task, ended)

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


def _named_left(slot: Slot) -> str:
    """What runs in a slot and no call hears of: `p3 ('npm run dev') and 2 others`; empty for nothing."""
    sandbox = slot.sandbox
    names = [
        f"{record.about.process_id} ({shown(record.about.text, len(record.about.text))})"
        for record in (sandbox.processes if sandbox is not None else ())
        if sandbox is not None and _is_left(record, sandbox)
    ]
    more = len(names) - MAX_NAMED
    if more > 0:
        names[MAX_NAMED:] = ["1 other" if more == 1 else f"{more} others"]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _is_left(record: Record, sandbox: Sandbox) -> bool:
    """It runs without a time-out, or has ended and left others behind."""
    if record.process.exit is None:
        return not record.about.has_timeout
    return record.process.number in sandbox.channel.living


def how_ended(ended: str, *, kept_files: bool, files: str = "") -> str:
    """The sentence for the answer. `kept_files`: the successor's workspace is the one that the task had before.

    Arguments:
        files: what to say of files that were put back; empty if there were none.
    """
    if files:
        return f"{ended}; {files}." if ended == CHANGED else f"The task's sandbox {ended} and was replaced; {files}."
    if ended == CHANGED:
        return f"{ended}; {'the workspace is the same' if kept_files else 'the files in the workspace are lost'}."
    files = (
        "the files in the workspace are still there" if kept_files else "the files that were in the workspace are lost"
    )
    return f"The task's sandbox {ended} and was replaced by a fresh one; {files}."
