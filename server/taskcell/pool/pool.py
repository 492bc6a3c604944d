"""Task -> sandbox: which task gets which container, one creation at a time for each, and every one closed at the end.

Each decision is made synchronously on plain state (`Slots`); the `Executor` then carries it out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import anyio
import anyio.abc
import anyio.to_thread

from taskcell.config.settings import Settings
from taskcell.deployment.base import Claimed, Deployment
from taskcell.errors import EngineError, NoRoom, SandboxLost, TaskMoved
from taskcell.model import TaskKey
from taskcell.policy.policy import AuthorizedProfile
from taskcell.pool.bounds import who_holds
from taskcell.pool.host_folder import doom_moved
from taskcell.pool.leaving import CLOSES, Leaving
from taskcell.pool.liveness import is_reachable
from taskcell.pool.parts import Parts
from taskcell.pool.slot import Lease, Leased, Slot
from taskcell.sandbox.sandbox import Sandbox, SandboxState

#: Seconds that a call waits for a sandbox: for its own start, after one that had its turn before (START_TIMEOUT of the
#: engine, twice). Only a pull takes longer; it goes on, and a later call has it.
CREATION_PATIENCE = 90.0


class Pool:
    """Owns every sandbox of this server. `open_pool` makes one, and says what the arguments are.

    Arguments:
        group: runs everything that no call waits for, until the end of the pool cancels it.
    """

    def __init__(
        self,
        group: anyio.abc.TaskGroup,
        parts: Parts,
        settings: Settings,
        deployment: Deployment,
        *,
        for_one_call: bool,
    ) -> None:
        self.group, self.slots = group, parts.slots
        self._workspaces, self.keeper, self._closing = parts.workspaces, parts.keeper, parts.closing
        self._heir, self._executor = parts.heir, parts.executor
        self._upkeep, self._sharing = parts.upkeep, parts.sharing
        self._settings, self.deployment = settings, deployment
        self._adopts = not for_one_call
        self._patience = math.inf if for_one_call else CREATION_PATIENCE
        self._beginning = anyio.Lock()
        self.leaving = Leaving(self, parts)
        self.begun = anyio.Event()
        #: Called with what the answer to a task's call is to say of its sandbox.
        self.on_notes: Callable[[TaskKey, Sequence[str]], None] = lambda task, notes: None
        self.keeps_sandboxes = settings.pool.on_exit == "keep" and not for_one_call

    @property
    def keeps_files(self) -> bool:
        """A closed task's files stay."""
        return self._settings.keeps_files

    @property
    def hands_over(self) -> bool:
        """At the end, its sandboxes stay for the deployment's next server."""
        return self.keeps_sandboxes and self.deployment.is_shared

    def next_process_id(self, task: TaskKey) -> str:
        """`p1`, `p2`, … unique in the task."""
        record = self._workspaces.record(task)
        record.processes += 1
        return f"p{record.processes}"

    # --- leases ------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def lease(self, task: TaskKey, profile: AuthorizedProfile, *, changes: bool = True) -> Leased:
        """The task's sandbox for this profile, and notes for the answer; it is not closed while it is leased.

        Raises:
            EngineError: it cannot be created, or not in time.
            NoRoom: all places stayed in use for too long.
            SandboxLost: the server is closing.
        """
        self._check_open()
        await self._begin(task)
        await self._sharing.check(task)
        await doom_moved(self.slots, task, profile.folder)
        lease = self.slots.lease((task, profile.name), profile, changes=changes)
        try:
            slot = await self._ready(lease)
            while not await is_reachable(slot):
                self._executor.begin(self.slots.withdraw(lease, time.monotonic()))
                lease = self.slots.lease((task, profile.name), profile, changes=changes)
                slot = await self._ready(lease)
            assert slot.sandbox is not None
            slot.reservation.close()
            await self._upkeep.note(slot)
            await self._sharing.check(task)  # again: this server may have stood still meanwhile
            notes = self.slots.take_notes(slot)
            self.on_notes(task, notes)
            with self.slots.endings.telling(task, notes):
                yield slot.sandbox, notes
        finally:
            # Nothing here may wait: a cancelled caller passes through.
            self._executor.begin(self.slots.withdraw(lease, time.monotonic()))

    async def _ready(self, lease: Lease) -> Slot:
        """Wait for a place and for its sandbox. Raises TaskcellError."""
        slot = lease.slot or await self._acquire(lease)
        await self._settled(slot)
        if slot.error is not None:
            raise slot.error
        return slot

    async def _acquire(self, lease: Lease) -> Slot:
        """Wait for a place. Raises NoRoom."""
        granted = lease.granted = anyio.Event()
        self._executor.begin(self.slots.assign(time.monotonic()))
        with anyio.move_on_after(self._settings.pool.acquire_timeout):
            await granted.wait()
        if lease.slot is None:
            waited, principal = self._settings.pool.acquire_timeout, lease.key[0].principal
            raise NoRoom(who_holds(list(self.slots), self.slots.bounds, principal, waited))
        return lease.slot

    async def _settled(self, slot: Slot) -> None:
        """Wait until the slot's creation has succeeded or failed. Raises EngineError when that takes too long."""
        if slot.settled.is_set():
            return
        with anyio.move_on_after(self._patience):
            await slot.settled.wait()
        if not slot.settled.is_set():
            raise EngineError(
                f"The sandbox is not ready after {self._patience:g} s. The engine is still creating it, or pulling its "
                "image, and goes on; call again in a minute."
            )

    # --- the beginning -----------------------------------------------------------------------------------------

    async def _begin(self, task: TaskKey) -> None:
        """Wait until it is known what earlier servers left of the task: its processes, and how they are numbered.

        At the first call, not at the start: some clients start a server only to look at it.
        """
        if not self._heir.has_begun:
            async with self._beginning:
                self._check_open()
                if not self._heir.has_begun:
                    await self._heir.begin(first=task)
                    self.begun.set()
                    self.group.start_soon(self._upkeep.run, self._sharing.look_at_siblings)
        await self._heir.known(task, self._settled)

    async def holder(self, task: TaskKey, *, is_sent: bool = False) -> Claimed:
        """The door of another server that has the task; none if this one has it now.

        `is_sent` as in `Claims`. Raises SandboxLost; EngineError: what a dead server left cannot be taken over.
        """
        if self.leaving.has_begun:
            return await self.leaving.heir_of(task)
        self._check_open()
        if not self._adopts:
            return Claimed()
        await self._begin(task)
        return await self._sharing.holder(task, is_sent=is_sent)

    def _check_open(self) -> None:
        if self._executor.is_stopped:
            raise TaskMoved if self.leaving.has_begun else SandboxLost(CLOSES)

    # --- what there is -----------------------------------------------------------------------------------------

    async def sandboxes(self, task: TaskKey) -> list[Sandbox]:
        """The task's sandboxes, with replaced ones that are not closed before what runs in them ends."""
        slots = [*(await self.of_task(task)), *self._closing.of_task(task)]
        return [slot.sandbox for slot in slots if slot.sandbox and slot.sandbox.state is SandboxState.READY]

    async def of_task(self, task: TaskKey) -> list[Slot]:
        """The task's places, once those of an earlier server are known."""
        if self._heir.has_begun or self._adopts:
            await self._begin(task)
        return [slot for slot in self.slots if slot.task == task]

    async def has_begun(self, task: TaskKey) -> bool:
        """Whether the task has a sandbox, has run a command, or has files of an earlier sandbox."""
        if await self.of_task(task) or self._closing.of_task(task) or self._workspaces.record(task).processes:
            return True
        return await anyio.to_thread.run_sync(self.keeper.has_files, task)

    @contextmanager
    def holding(self, task: TaskKey, sandbox: Sandbox, *, serves: bool = False) -> Iterator[None]:
        """Lease a sandbox that is there already, for a call about a process in it, or for a process.

        The one sandbox of a single call is leased already until that call's answer was read.

        Arguments:
            serves: for a process without a time-out; it can be ended to make room.
        """
        slot = next((one for one in (*self.slots, *self._closing.of_task(task)) if one.sandbox is sandbox), None)
        if slot is None or slot.is_for_one_call:
            yield
            return
        lease = self.slots.hold(slot, serves=serves)
        self._executor.serve_waiting()
        try:
            yield
        finally:
            self._executor.begin(self.slots.withdraw(lease, time.monotonic()))

    def replaced(self, task: TaskKey) -> list[Slot]:
        """The task's places that have a successor, and are not closed before what runs in them ends."""
        return [slot for slot in self._closing.of_task(task) if slot.leases]

    # --- the end -----------------------------------------------------------------------------------------------

    async def close_task(self, task: TaskKey, successor: Path | None = None) -> int:
        """Close all of the task's sandboxes and delete its workspace; returns how many there were.

        A persistent workspace stays.

        Arguments:
            successor: an archive that the keeper has begun; its files are the task's from now on.

        Raises:
            EngineError: the engine does not remove them in time; it is asked again.
            OSError: `successor` cannot be moved to its place.
            SandboxLost: the server is closing.
        """
        self._check_open()
        await self._begin(task)
        self.keeper.forget(task, successor)
        taken = self.slots.take(lambda slot: slot.task == task)
        self.slots.endings.forget(task)
        record = self._workspaces.forget(task)
        slots = {*taken, *self._closing.of_task(task)}
        for slot in slots:
            self._closing.begin(slot)
        # In the pool's own group: a caller that gives up leaves nothing half closed.
        closed = anyio.Event()
        self.group.start_soon(self._closing.close_task, slots, record, closed)
        with anyio.move_on_after(self._patience):
            await closed.wait()
        if not closed.is_set():
            raise EngineError(
                f"The task's sandboxes are not closed after {self._patience:g} s: the engine does not remove them. "
                "It is asked again; the task's next command gets a fresh sandbox."
            )
        self._executor.note_change()
        return len(taken)

    async def reset(self, task: TaskKey) -> list[str]:
        """Give each of the task's sandboxes a fresh successor with the same workspace.

        Returns a sentence for each; a sandbox that had died may have taken the files with it.

        Raises:
            EngineError: a successor cannot be created.
            SandboxLost: the server is closing.
        """
        self._check_open()
        await self._begin(task)
        steps = self.slots.replace(lambda slot: slot.task == task, time.monotonic())
        self._executor.begin([*steps, *self.slots.assign(time.monotonic())])
        for step in steps:
            await self._settled(step.slot)
            if step.slot.error is not None:
                raise step.slot.error
        notes = [note for step in steps for note in self.slots.take_notes(step.slot)]
        if fresh := len(steps) - len(notes):
            what = "1 sandbox was" if fresh == 1 else f"{fresh} sandboxes were"
            notes.append(f"{what} replaced; the workspace is the same.")
        return notes

    async def close(self) -> None:
        """Close every sandbox, or leave those to the deployment's next server that it can use; then end the group."""
        self._executor.stop()
        try:
            if not self.leaving.is_done:
                await self.leaving.close()
        finally:
            self.group.cancel_scope.cancel()
            self._executor.give_up()
