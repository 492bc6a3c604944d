"""When this server takes over what others left: at its first call, and when another one has died since."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence

import anyio
import anyio.abc

from taskcell.deployment.records import NoteRecord, SandboxRecord
from taskcell.model import TaskKey
from taskcell.pool.adoption import BESIDE, LOST, Inheritance, Left
from taskcell.pool.executor import Executor
from taskcell.pool.siblings import share_out
from taskcell.pool.slot import Slot, Step
from taskcell.pool.state import Slots
from taskcell.pool.workspaces import Workspaces

#: What a task's first answer here says when another server has its files.
ELSEWHERE = (
    "Another server that runs has taken over the sandbox that this task had, with its files; on the host, "
    "`taskcell ps` lists it."
)


class Heir:
    """Gives sandboxes of dead servers to their tasks.

    Arguments:
        own: this server's own sandboxes and notes, as they are to stand in its file.
        group: the pool's.
        adopts: False leaves everything to others.
    """

    def __init__(
        self,
        slots: Slots,
        workspaces: Workspaces,
        executor: Executor,
        inheritance: Inheritance,
        own: Callable[[], tuple[Sequence[SandboxRecord], Sequence[NoteRecord]]],
        *,
        group: anyio.abc.TaskGroup,
        adopts: bool,
    ) -> None:
        self._slots = slots
        self._workspaces = workspaces
        self._executor = executor
        self._inheritance = inheritance
        self._own = own
        self._group = group
        self._adopts = adopts
        self._adopting: list[Slot] = []
        self._beside: defaultdict[TaskKey, list[Slot]] = defaultdict(list)
        self._elsewhere: frozenset[TaskKey] = frozenset()
        self.has_begun = False

    async def begin(self, first: TaskKey) -> None:
        """Join the deployment and take over what dead servers left, what the task `first` had before the rest."""
        # What is read is taken from the disk: a few files, whole or not at all.
        with anyio.CancelScope(shield=True):
            left = await self._inheritance.begin(self._group, adopt=self._adopts)
        self._take(left, first)
        self.has_begun = True

    async def look_again(self) -> None:
        """Take over what servers left that have died since. This server's own file must not be written meanwhile."""
        if not self._adopts or self._executor.is_stopped:
            return
        with anyio.CancelScope(shield=True):
            left = await self._inheritance.take_later(*self._own())
        self._elsewhere = left.elsewhere
        if left.sandboxes or left.notes:
            self._take(left, None)

    async def take_over(self, instance: str) -> None:
        """Take over at once what a server left that has died. This server's own file must not be written meanwhile."""
        if self._adopts and not self._executor.is_stopped:
            with anyio.CancelScope(shield=True):
                left = await self._inheritance.take_from(instance, *self._own())
            self._take(left, None)

    async def known(self, task: TaskKey, settled: Callable[[Slot], Awaitable[None]]) -> None:
        """Wait until it is known what became of the task's sandboxes of earlier servers.

        Arguments:
            settled: waits for a place as long as a call does, and raises what the call is to fail with.
        """
        if self._adopting:
            for slot in self._adopting:
                if task in (slot.task, slot.had):
                    await settled(slot)
            self._adopting = [slot for slot in self._adopting if not slot.settled.is_set()]
        if self._beside:
            self._check_beside(task)
        if task in self._elsewhere and all(slot.task != task for slot in self._slots):
            self._slots.endings.tell(task, ELSEWHERE)

    def _check_beside(self, task: TaskKey) -> None:
        """Say that files beside the task are lost where no sandbox with them could be adopted."""
        slots = self._beside.pop(task, [])
        for beside in {slot.task for slot in slots}:
            if all(slot.had is None for slot in slots if slot.task == beside):
                self._slots.endings.take_back(task, BESIDE.format(beside.task))
                self._slots.endings.tell(task, LOST.format("its sandbox had ended"))

    def _take(self, left: Left, first: TaskKey | None) -> None:
        self._elsewhere = left.elsewhere
        self._slots.endings.restore(left.notes)
        taken = {slot.task for slot in self._slots}
        shares = share_out((record for record in left.sandboxes if record.task), taken)
        for share in shares:
            for record in share.records:
                self._workspaces.count_commands(record.key, record.commands)
        slots = self._inheritance.slots(shares)
        slots.sort(key=lambda slot: first not in (slot.task, slot.had))
        for slot in slots:
            self._slots.inherit(slot)
            self._executor.begin([Step(slot, create=True)])
            if slot.had is not None and slot.had != slot.task:
                self._beside[slot.had].append(slot)
        self._adopting += slots
        adopted = {slot.inherited.container for slot in slots if slot.inherited is not None}
        self._group.start_soon(self._inheritance.clear_up, left.sandboxes, adopted)
