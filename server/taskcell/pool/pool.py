"""Task -> sandbox: who gets which container, one creation at a time for each, and every one closed at the end.

Each decision is made synchronously on plain state (`Slots`); what it says to create or to close is done after it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
import anyio.abc

from taskcell.deployment.records import Deployment
from taskcell.engine.base import Engine
from taskcell.errors import NoRoom, SandboxLost
from taskcell.model import TaskKey
from taskcell.policy.policy import AuthorizedProfile
from taskcell.pool.adoption import Inheritance
from taskcell.pool.bounds import Bounds, who_holds
from taskcell.pool.closing import Closing
from taskcell.pool.launcher import Launcher, LaunchOptions
from taskcell.pool.opening import Opening
from taskcell.pool.slot import Decision, Lease, Slot, SlotState
from taskcell.pool.state import Slots
from taskcell.pool.upkeep import Upkeep
from taskcell.sandbox.sandbox import Sandbox, SandboxState


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """Settings of the pool, in seconds.

    Arguments:
        keep: at the end, leave sandboxes to the deployment's next server.
        adopt: take up those that an earlier server left.
    """

    launch: LaunchOptions
    bounds: Bounds
    idle_ttl: float = 900.0
    acquire_timeout: float = 30.0
    keep: bool = False
    adopt: bool = True


class Pool:
    """Owns every sandbox of this server. Use as an async context manager; leaving it closes all of them.

    Arguments:
        deployment: where other servers find what this one leaves.
        profile_of: the authorised profile of that name as it is now; None where there is none, or it is denied.
    """

    def __init__(
        self,
        engine: Engine,
        options: PoolOptions,
        deployment: Deployment,
        profile_of: Callable[[str], AuthorizedProfile | None],
    ) -> None:
        self._options = options
        self._slots = Slots(options.bounds)
        instance = secrets.token_hex(8)
        self._launcher = Launcher(engine, options.launch, deployment, instance)
        self._closing = Closing(engine, self._launcher, self._slots, options.launch.deployment, instance)
        self._inheritance = Inheritance(engine, deployment, options.launch.deployment, instance, profile_of)
        self._upkeep = Upkeep(
            self._slots,
            self._launcher,
            deployment,
            idle_ttl=options.idle_ttl,
            act=self._act,
            close_idle=self._close_idle,
        )
        self._opening = Opening(
            self._slots,
            self._launcher,
            self._inheritance,
            self._closing,
            act=self._act,
            serve_waiting=self._serve_waiting,
            wake=self._upkeep.wake,
        )
        self._deployment = deployment
        self._host: anyio.abc.TaskGroup | None = None
        self._group: anyio.abc.TaskGroup | None = None
        self._ends = False
        self._has_begun = False
        self._beginning = anyio.Lock()
        self._inherited: list[Slot] = []

    async def __aenter__(self) -> Pool:
        self._host = await anyio.create_task_group().__aenter__()
        opened = anyio.Event()
        self._host.start_soon(self._hold_group, opened)
        with anyio.CancelScope(shield=True):  # for one turn of the loop
            await opened.wait()
        return self

    async def _hold_group(self, opened: anyio.Event) -> None:
        # A signal cancels whoever has opened the pool; the channels outlive that, for by them sandboxes are closed.
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as group:
                self._group = self._launcher.group = self._opening.group = group
                opened.set()
                await anyio.sleep_forever()  # until the end cancels it

    async def __aexit__(self, *exc: object) -> None:
        group, host = self._group, self._host
        assert group is not None
        assert host is not None
        self._ends = True
        try:
            if self._options.keep and self._deployment.is_shared:
                await self._upkeep.keep_all(self._closing)
            else:
                await self._closing.close_everything()
        finally:
            group.cancel_scope.cancel()
            self._opening.cancel()
            try:
                await host.__aexit__(None, None, None)
            finally:
                self._deployment.leave(keep=self._options.keep)

    # --- leases ------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def lease(self, task: TaskKey, profile: AuthorizedProfile) -> AsyncIterator[tuple[Sandbox, list[str]]]:
        """The task's sandbox for this profile, and notes for the answer; it is not closed while it is leased.

        Raises EngineError when it cannot be created, NoRoom when all places stay in use for too long.
        """
        self._open_group()
        await self._known(task)
        lease = self._slots.lease((task, profile.profile.name), profile)
        try:
            slot = lease.slot or await self._acquire(lease)
            await slot.settled.wait()
            if slot.error is not None:
                raise slot.error
            assert slot.sandbox is not None
            yield slot.sandbox, self._slots.take_notes(slot)
        finally:
            # Nothing here may wait: a cancelled caller passes through.
            self._act(self._slots.withdraw(lease, time.monotonic()))

    async def _acquire(self, lease: Lease) -> Slot:
        """Wait for a place. Raises NoRoom."""
        granted = lease.granted = anyio.Event()
        self._act(self._slots.assign(time.monotonic()))
        with anyio.move_on_after(self._options.acquire_timeout):
            await granted.wait()
        if lease.slot is None:
            waited, principal = self._options.acquire_timeout, lease.key[0].principal
            raise NoRoom(who_holds(list(self._slots), self._options.bounds, principal, waited))
        return lease.slot

    async def _begin(self, task: TaskKey) -> None:
        """At the first call, not at the start: some clients start a server only to look at it."""
        async with self._beginning:
            if self._has_begun:
                return
            group = self._open_group()
            # What is read is taken from the disk: a few files, whole or not at all.
            with anyio.CancelScope(shield=True):
                records = await self._inheritance.begin(adopt=self._options.adopt)
            slots = self._inheritance.slots(records, task)
            for record in records:
                if record.task:
                    self._launcher.number_on(record.key, record.commands)
            for slot in slots:
                self._slots.inherit(slot)
                self._act([Decision(slot, create=True)])
            self._inherited = slots
            taken = {slot.inherited.container for slot in slots if slot.inherited is not None}
            group.start_soon(self._inheritance.clear_up, records, taken)
            group.start_soon(self._upkeep.run)
            self._has_begun = True

    async def _known(self, task: TaskKey) -> None:
        """Wait until it is known what earlier servers left of the task: its processes, and how they are numbered."""
        if not self._has_begun:
            await self._begin(task)
        if self._inherited:
            for slot in self._inherited:
                if slot.task == task:
                    await slot.settled.wait()
            self._inherited = [slot for slot in self._inherited if not slot.settled.is_set()]

    def _act(self, decisions: Iterable[Decision]) -> None:
        """Begin what was decided; none of it is waited for here."""
        group = self._group
        assert group is not None
        for decision in decisions:
            slot = decision.slot
            for evicted in decision.evicted:
                self._close_idle(evicted)
            if slot.state is SlotState.CREATING and not slot.is_warm:
                self._launcher.claim_founding(slot)
            if decision.create:
                group.start_soon(self._opening.create, slot)
            if decision.check:
                group.start_soon(self._opening.hand_out, slot)
            if decision.retired is not None:
                self._closing.begin(decision.retired)
                group.start_soon(self._closing.retire, decision.retired, slot, decision.at_once)

    def _serve_waiting(self) -> None:
        """A sandbox may make room now that could not before."""
        if self._slots.waiting and not self._ends:
            self._act(self._slots.assign(time.monotonic()))

    def _close_idle(self, slot: Slot) -> None:
        assert self._group is not None
        self._closing.begin(slot)
        self._group.start_soon(self._closing.close_idle, slot)

    def _open_group(self) -> anyio.abc.TaskGroup:
        if self._group is None or self._ends:
            raise SandboxLost("The server is closing: nothing new is started, and every sandbox is closed.")
        return self._group

    @property
    def keeps_files(self) -> bool:
        """A closed task's files stay."""
        return self._options.bounds.persistent

    def next_process_id(self, task: TaskKey) -> str:
        """`p1`, `p2`, … unique in the task."""
        record = self._launcher.record(task)
        record.processes += 1
        return f"p{record.processes}"

    # --- the end -----------------------------------------------------------------------------------------------

    async def close_task(self, task: TaskKey) -> int:
        """Close all of the task's sandboxes and delete its workspace; answers how many there were.

        A persistent workspace stays.
        """
        group = self._open_group()
        await self._known(task)
        taken = self._slots.take(lambda slot: slot.task == task)
        self._slots.forget(task)
        record = self._launcher.forget(task)
        slots = {*taken, *self._closing.of_task(task)}
        for slot in slots:
            self._closing.begin(slot)
        # In the pool's own group: a caller that gives up leaves nothing half closed.
        closed = anyio.Event()
        group.start_soon(self._closing.close_and_tell, slots, record, closed)
        await closed.wait()
        self._upkeep.wake()
        return len(taken)

    async def reset(self, task: TaskKey) -> list[str]:
        """Give each of the task's sandboxes a fresh successor with the same workspace.

        Answers a sentence for each; a sandbox that had died may have taken the files along. Raises EngineError.
        """
        self._open_group()
        await self._known(task)
        decisions = self._slots.replace(lambda slot: slot.task == task, time.monotonic())
        self._act([*decisions, *self._slots.assign(time.monotonic())])
        for decision in decisions:
            await decision.slot.settled.wait()
            if decision.slot.error is not None:
                raise decision.slot.error
        told = [note for decision in decisions for note in self._slots.take_notes(decision.slot)]
        fresh = len(decisions) - len(told)
        if fresh:
            what = "1 sandbox was" if fresh == 1 else f"{fresh} sandboxes were"
            told.append(f"{what} replaced; the workspace is the same.")
        return told

    async def sandboxes(self, task: TaskKey) -> list[Sandbox]:
        """The task's sandboxes, with those that have a successor but are not closed before what runs in them ends."""
        slots = [*(await self.of_task(task)), *self._closing.of_task(task)]
        return [slot.sandbox for slot in slots if slot.sandbox and slot.sandbox.state is SandboxState.READY]

    async def of_task(self, task: TaskKey) -> list[Slot]:
        """The task's places, once those of an earlier server are known."""
        if self._has_begun or self._options.adopt:
            await self._known(task)
        return [slot for slot in self._slots if slot.task == task]
