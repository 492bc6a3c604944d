"""Questions to the person about hosts that a sandbox may not reach: who can be asked, and what was answered.

One question of a task is asked at a time, each host's once, and the answer holds for the rest of the task.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import anyio

from taskcell.audit.log import AuditFailed, AuditLog
from taskcell.destinations import Destination
from taskcell.egress.dial import is_own
from taskcell.egress.rules import NotConnected, Why, is_public
from taskcell.model import TaskKey

#: Seconds that a connection waits for the person. Programs' own bounds are seldom longer; a later answer still counts
#: for their next try.
ASK_PATIENCE = 120.0
#: Hosts of one task that wait for an answer, and questions that the person gets for one task.
MAX_WAITING_HOSTS, MAX_ASKED = 8, 32
#: Tasks whose answers are remembered. Of the one that was used least recently they are forgotten.
MAX_ASKING_TASKS = 10_000
#: Names of a local network, which no question is about (RFC 6761, 6762, 8375).
_LOCAL_NAMES = (".localhost", ".local", ".internal", ".home.arpa", ".invalid", ".onion")


@dataclass(slots=True, eq=False)
class Question:
    """Whether a task may reach a host.

    Arguments:
        waiting: connections that wait for the answer.
        reason: why nobody could be asked.
    """

    task: TaskKey
    to: Destination
    waiting: int = 0
    is_asked: bool = False
    allowed: bool | None = None
    reason: str = ""
    done: anyio.Event = field(default_factory=anyio.Event)


@dataclass(slots=True)
class _OfTask:
    """What is known about one task. `askers`: its calls whose clients can ask the person; `deaf`: the others."""

    answers: dict[Destination, bool] = field(default_factory=dict)
    open: dict[Destination, Question] = field(default_factory=dict)
    asked: int = 0
    askers: int = 0
    deaf: int = 0
    changed: anyio.Event = field(default_factory=anyio.Event)

    def wake(self) -> None:
        changed, self.changed = self.changed, anyio.Event()
        changed.set()

    @property
    def is_in_use(self) -> bool:
        return bool(self.open or self.askers or self.deaf)


class Questions:
    """The questions of a server's tasks.

    Arguments:
        audit: gets a line for each answer; None writes none.
    """

    def __init__(self, audit: AuditLog | None) -> None:
        self._audit = audit
        self._tasks: OrderedDict[TaskKey, _OfTask] = OrderedDict()

    def _of(self, task: TaskKey) -> _OfTask:
        found = self._tasks.pop(task, None) or _OfTask()
        self._tasks[task] = found
        while len(self._tasks) > MAX_ASKING_TASKS:
            oldest, unused = next(iter(self._tasks.items()))
            if unused.is_in_use:
                break
            del self._tasks[oldest]
        return found

    def forget(self, task: TaskKey) -> None:
        """Forget what was answered: the task is closed."""
        if task in self._tasks:
            self._tasks[task].answers.clear()
            self._tasks[task].asked = 0

    # --- for connections ---------------------------------------------------------------------------------------

    async def check(self, task: TaskKey, to: Destination) -> None:
        """Wait for the person's permission to reach a host. Raises NotConnected without it."""
        state = self._of(task)
        if to not in state.answers:
            question = state.open.get(to) or self._new(state, task, to)
            await self._wait(state, question)
            if question.allowed is None:
                reason = question.reason or "has not answered yet; when that is done, try again"
                raise NotConnected(Why.ASKED, f"This sandbox may not reach {to}: the person {reason}.", to)
        if not state.answers.get(to, False):
            sentence = f"This sandbox may not reach {to}: the person was asked, and does not allow it."
            raise NotConnected(Why.ASKED, sentence, to)

    @staticmethod
    def _new(state: _OfTask, task: TaskKey, to: Destination) -> Question:
        """A new question. Raises NotConnected when none may be asked."""
        if not _may_be_asked(to):
            raise NotConnected(Why.DENIED, f"This sandbox may not reach {to}.", to)
        if state.asked >= MAX_ASKED:
            sentence = f"This sandbox may not reach {to}: the person was asked {MAX_ASKED} times in this task already."
            raise NotConnected(Why.ASKED, sentence, to)
        if len(state.open) >= MAX_WAITING_HOSTS:
            sentence = (
                f"This sandbox may not reach {to} now: {MAX_WAITING_HOSTS} other hosts wait for the person's answer."
            )
            raise NotConnected(Why.ASKED, sentence, to)
        if state.deaf and not state.askers:
            reason = "cannot be asked through this client; the operator can allow it in `egress`"
            raise NotConnected(Why.ASKED, f"This sandbox may not reach {to}: the person {reason}.", to)
        question = state.open[to] = Question(task, to)
        state.wake()
        return question

    @staticmethod
    async def _wait(state: _OfTask, question: Question) -> None:
        question.waiting += 1
        try:
            with anyio.move_on_after(ASK_PATIENCE):
                await question.done.wait()
        finally:
            question.waiting -= 1
            if not question.waiting and state.open.get(question.to) is question:
                del state.open[question.to]
                state.wake()

    # --- for calls ---------------------------------------------------------------------------------------------

    @contextmanager
    def call(self, task: TaskKey, *, can_ask: bool) -> Iterator[None]:
        """A call of the task runs while this is entered."""
        state = self._of(task)
        state.askers += can_ask
        state.deaf += not can_ask
        try:
            yield
        finally:
            state.askers -= can_ask
            state.deaf -= not can_ask

    async def next(self, task: TaskKey) -> Question:
        """Wait until there is something to ask. Whoever gets a question answers it, or puts it back."""
        state = self._of(task)
        while True:
            waiting = state.open.values()
            if not any(question.is_asked for question in waiting):
                for question in waiting:
                    question.is_asked = True
                    state.asked += 1
                    return question
            await state.changed.wait()

    def put_back(self, question: Question) -> None:
        """Nobody was asked, or the answer does not come any more: another call may ask."""
        state = self._of(question.task)
        if question.is_asked and question.allowed is None:
            question.is_asked = False
            state.wake()

    def fail(self, question: Question, reason: str) -> None:
        """The person cannot be asked. `reason` completes "the person … "."""
        question.reason = reason
        self._close(question)

    def answer(self, task: TaskKey, to: Destination, action: str) -> None:
        """Take the person's answer, for the rest of the task.

        Arguments:
            action: of MCP's elicitation; all but `accept` is a no.
        """
        state, is_allowed = self._of(task), action == "accept"
        try:
            self._write(task, to, action, is_allowed=is_allowed)
        except AuditFailed:
            is_allowed = False
        state.answers[to] = is_allowed
        question = state.open.get(to)
        if question is not None:
            question.allowed = is_allowed
            self._close(question)

    def _close(self, question: Question) -> None:
        state = self._of(question.task)
        if state.open.get(question.to) is question:
            del state.open[question.to]
        question.done.set()
        state.wake()

    def _write(self, task: TaskKey, to: Destination, action: str, *, is_allowed: bool) -> None:
        if self._audit is not None:
            effect = "allow" if is_allowed else "deny"
            line = {"principal": task.principal, "task": task.task, "to": str(to), "effect": effect}
            self._audit.write("egress_answer", **line, answer=action)


def _may_be_asked(to: Destination) -> bool:
    """Whether a host may be public. A name is not looked up before somebody allows it: that would tell it outside."""
    if to.address is not None:
        return is_public(to.address) and not is_own(to.address, to.port)
    return "." in to.host and not to.host.endswith(_LOCAL_NAMES)
