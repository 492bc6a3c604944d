"""What clients do: tasks that arrive in a pattern, and the calls of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from taskcell.model import TaskKey

#: Calls of a task, on average: geometric, so that many have one or two and some have twenty.
CALLS = 4
#: Seconds between an answer and the next call: a model thinks. Exponential.
THINK = 8.0
#: Seconds of a command: most are short, some are builds. Log-normal.
COMMAND_MEDIAN, COMMAND_SPREAD = 0.3, 1.5
#: Principals of teams, whose shares fall as 1/rank.
PEOPLE = 2000


@dataclass(slots=True, eq=False)
class Task:
    """One task of a client, which makes one call after the other.

    Arguments:
        calls: that it still makes.
        closes: its client ends it; others leave it to the server.
        batch: the evaluation whose next task begins when this one ends.
    """

    key: TaskKey
    calls: int
    closes: bool
    batch: Batch | None = None
    attempts: int = 0


@dataclass(slots=True, eq=False)
class Batch:
    """An evaluation: its tasks, of which so many run at once."""

    principal: str
    left: int
    made: int = 0


@dataclass(slots=True, eq=False)
class Call:
    """A call on its way. `leg` tells a later try from an earlier one, whose events then mean nothing.

    Arguments:
        seconds: that its command takes.
        ends: when the command ends that has been started for it; 0 before that.
        hops: servers that have handed it on.
    """

    task: Task
    asked: float
    seconds: float
    is_first: bool
    ends: float = 0.0
    leg: int = 0
    hops: int = 0
    answers: list[str] = field(default_factory=list)


class Work:
    """Draws tasks and calls."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._shares = [1 / rank for rank in range(1, PEOPLE + 1)]

    def spread_over(self, seconds: float, tasks: int) -> Iterator[tuple[float, Task]]:
        """A team's tasks with their times: few at the ends, twice the mean in the middle. Most are never closed."""
        owners = self._random.choices(range(PEOPLE), self._shares, k=tasks)
        for number, owner in enumerate(owners):
            # The sum of two uniform values has a triangle's density.
            at = (self._random.random() + self._random.random()) / 2 * seconds
            yield at, self._task(f"person {owner}", number, closes=self._random.random() < 0.2)

    def evaluations(self, count: int, tasks: int, at_once: int, within: float) -> Iterator[tuple[float, Task]]:
        """The first tasks of so many evaluations, which begin within so many seconds."""
        for number in range(count):
            batch = Batch(f"evaluation {number}", tasks // count)
            began = self._random.random() * within
            for _ in range(min(at_once, batch.left)):
                task = self.next_of(batch)
                if task is not None:
                    yield began, task

    def next_of(self, batch: Batch) -> Task | None:
        """The next task of an evaluation; None at its end."""
        if not batch.left:
            return None
        batch.left -= 1
        batch.made += 1
        return self._task(batch.principal, batch.made, closes=True, batch=batch)

    def call(self, task: Task, now: float, *, is_first: bool) -> Call:
        """The task's next call."""
        return Call(task, now, COMMAND_MEDIAN * 2.718281828 ** self._random.gauss(0, COMMAND_SPREAD), is_first)

    def pause(self) -> float:
        """Seconds until the next call."""
        return self._random.expovariate(1 / THINK)

    def _task(self, principal: str, number: int, *, closes: bool, batch: Batch | None = None) -> Task:
        calls = 1
        while self._random.random() > 1 / CALLS:
            calls += 1
        return Task(TaskKey(principal, f"task {number}"), calls, closes, batch)
