"""How the last sandbox of each task ended, kept until the answer to the task's next call has said it."""

from __future__ import annotations

from taskcell.model import TaskKey
from taskcell.pool.slot import SlotKey

#: Endings that are kept for the next call of their task; each takes a few hundred bytes.
MAX_REMEMBERED = 10_000
CHANGED = "The sandbox was replaced because its configuration changed"


class Endings:
    """Remembers the MAX_REMEMBERED newest, one for each task and profile."""

    def __init__(self) -> None:
        self._ended: dict[SlotKey, str] = {}

    def remember(self, key: SlotKey, ended: str) -> None:
        """Keep an ending. `ended` continues the words "The task's sandbox"."""
        self._ended[key] = ended
        while len(self._ended) > MAX_REMEMBERED:
            del self._ended[next(iter(self._ended))]

    def take(self, key: SlotKey) -> str:
        """The ending, for the successor's first answer; empty when there is none."""
        return self._ended.pop(key, "")

    def forget(self, task: TaskKey) -> None:
        """The task was closed on purpose: no later answer needs to say how its sandboxes ended."""
        for key in [key for key in self._ended if key[0] == task]:
            del self._ended[key]


def how_ended(ended: str, *, kept_files: bool) -> str:
    """The sentence for the answer. `kept_files`: the successor's workspace is the one that the task had before."""
    if ended == CHANGED:
        return f"{ended}; {'the workspace is the same' if kept_files else 'the files in the workspace are lost'}."
    files = (
        "the files in the workspace are still there" if kept_files else "the files that were in the workspace are lost"
    )
    return f"The task's sandbox {ended} and was replaced by a fresh one; {files}."
