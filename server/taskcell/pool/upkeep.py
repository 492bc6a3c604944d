"""What the pool does without being asked: it closes idle sandboxes, keeps some warm, looks for dead ones, and writes
down which there are.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator

import anyio
import anyio.abc
import structlog

from taskcell.deployment.base import Deployment
from taskcell.deployment.key import fingerprint
from taskcell.deployment.records import NoteRecord, SandboxRecord
from taskcell.model import TaskKey
from taskcell.pool.executor import Executor
from taskcell.pool.keeper import Keeper
from taskcell.pool.leftovers import Leftovers
from taskcell.pool.liveness import Liveness
from taskcell.pool.slot import Slot, SlotState
from taskcell.pool.state import Slots
from taskcell.pool.workspaces import Workspaces

log = structlog.get_logger(__name__)

#: Seconds between two looks at all sandboxes: `idle_ttl` is exact to that, and other servers read nothing older.
TICK = 1.0
#: Seconds between two looks whether another server of the deployment has died: a fraction of any useful `orphan_ttl`.
SIBLINGS = 2.0
#: Seconds to leave the engine alone after a creation: making a warm sandbox must not slow down the call before it.
WARM_DELAY = 0.25
#: Seconds to the next attempt after a warm sandbox could not be made.
WARM_RETRY = 30.0
#: Seconds for reading and writing a few files, which takes milliseconds; inside what the end of a server may take.
REST_TIMEOUT = 0.5


class Upkeep:
    """Runs in the pool's own task group from the first call on.

    Arguments:
        idle_ttl: seconds without a call or a process after which a sandbox is closed.
    """

    def __init__(
        self,
        slots: Slots,
        executor: Executor,
        workspaces: Workspaces,
        deployment: Deployment,
        keeper: Keeper,
        *,
        leftovers: Leftovers,
        liveness: Liveness,
        idle_ttl: float,
    ) -> None:
        self._slots = slots
        self._workspaces = workspaces
        self._executor = executor
        self._deployment = deployment
        self._keeper = keeper
        self._leftovers = leftovers
        self._liveness = liveness
        self._idle_ttl = idle_ttl
        self._siblings_at = time.monotonic() + SIBLINGS
        self._written: tuple[list[SandboxRecord], list[NoteRecord]] | None = None
        self._noted: frozenset[tuple[str, TaskKey]] = frozenset()
        self._writing = anyio.Lock()
        self._warm: Slot | None = None
        self._warm_after = 0.0
        self._warm_reason = ""

    async def run(self, look_at_siblings: Callable[[], Awaitable[None]]) -> None:
        """Look at everything again and again, until the pool closes.

        Arguments:
            look_at_siblings: adopts what other servers left that have died meanwhile.
        """
        async with anyio.create_task_group() as asking:
            asking.start_soon(self._liveness.follow, asking)
            while not self._executor.is_stopped:
                try:
                    await self._look(asking, look_at_siblings)
                except Exception:  # whatever it is: a fault in the upkeep must not end the calls
                    log.exception("the upkeep of the pool failed, and goes on")
                with anyio.move_on_after(min(TICK, self._idle_ttl)):
                    await self._executor.changed()
                    await anyio.sleep(WARM_DELAY)

    async def _look(self, asking: anyio.abc.TaskGroup, look_at_siblings: Callable[[], Awaitable[None]]) -> None:
        now = time.monotonic()
        for slot in self._slots.take_idle(now, self._idle_ttl):
            self._executor.close_idle(slot)
        self._executor.begin(self._slots.assign(now))
        self._liveness.look(asking, now)
        await self._keeper.look(asking, now)
        if self._leftovers.is_due(now):
            asking.start_soon(self._leftovers.remove)
        self._keep_warm(now)
        if now >= self._siblings_at:
            self._siblings_at = now + SIBLINGS
            # What is taken over is in this server's file before it has slots.
            await self.undisturbed(look_at_siblings)
        await self.write()

    # --- warm ----------------------------------------------------------------------------------------------------

    def _keep_warm(self, now: float) -> None:
        if self._warm is not None and self._warm.state is SlotState.FAILED:
            reason = str(self._warm.error)
            if reason != self._warm_reason:  # once: it is tried again and again
                log.warning("no sandbox could be made ready for the next task", reason=reason)
            self._warm_reason, self._warm_after = reason, now + WARM_RETRY
        elif self._warm is not None and self._warm.state is SlotState.READY:
            self._warm_reason = ""
        self._warm = None
        if now < self._warm_after:
            return
        steps = self._slots.next_warm(now)
        self._executor.begin(steps)
        self._warm = next((step.slot for step in steps if step.create), None)

    # --- what others read ----------------------------------------------------------------------------------------

    async def note(self, slot: Slot) -> None:
        """Write down a sandbox before the first answer from it: a server that is killed loses no files in silence."""
        if slot.sandbox is not None and (slot.sandbox.container.id, slot.task) not in self._noted:
            await self.write()

    async def write(self) -> None:
        """Write the records for other servers, if they have changed since they were written last."""
        if not self._deployment.is_shared:
            return
        async with self._writing:
            written = self.own()
            if written != self._written:
                await self._deployment.write(*written)
                self._written = written
                self._noted = frozenset((record.container, record.key) for record in written[0])

    async def write_last(self) -> None:
        """Write the records at the end of this server, once nothing is being taken over any more."""
        await self.rest()
        with anyio.CancelScope(shield=True):
            await self.write()

    async def undisturbed(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do something while this server's file is not written."""
        async with self._writing:
            await work()

    async def rest(self) -> None:
        """Wait, within REST_TIMEOUT, until nothing is being taken over: the end of the pool closes that as well."""
        with anyio.move_on_after(REST_TIMEOUT, shield=True):
            async with self._writing:
                pass

    def own(self) -> tuple[list[SandboxRecord], list[NoteRecord]]:
        """What is to stand in this server's file: its sandboxes, and everything that no answer has said yet."""
        notes = [*self._slots.endings.records(), *(note for slot in self._slots for note in _notes(slot))]
        return self._records(), notes

    def _records(self) -> list[SandboxRecord]:
        """Every sandbox that another server could use or should know about.

        A ready one that a task has just taken is left out until the task's files are in it, whole.
        """
        shift = time.time() - time.monotonic()
        settled = (slot for slot in self._slots if slot.inherited or (slot.sandbox and slot.settled.is_set()))
        return [slot.inherited or self._record(slot, shift) for slot in settled]

    def _record(self, slot: Slot, shift: float) -> SandboxRecord:
        sandbox, task = slot.sandbox, slot.task
        assert sandbox is not None
        idle_since = 0.0 if slot.is_busy else round(slot.quiet_since + shift, 1)
        return SandboxRecord(
            container=sandbox.container.id,
            name=sandbox.container.name,
            principal=task.principal,
            task=task.task,
            profile=slot.profile.name,
            fingerprint="" if slot.outdated else self._fingerprint(slot),
            nonce=slot.nonce,
            workspace=sandbox.container.volume,
            is_owner=sandbox.container.is_owner,
            is_in_memory=not self._slots.bounds.persistent,
            created=round(slot.created + shift, 1),
            idle_since=idle_since,
            processes=len(sandbox.channel.living),
            commands=0 if slot.is_warm else self._workspaces.record(task).processes,
            adopted=slot.had is not None,
        )

    def _fingerprint(self, slot: Slot) -> str:
        if not slot.fingerprint:
            slot.fingerprint = fingerprint(self._deployment.key, slot.profile)
        return slot.fingerprint


def _notes(slot: Slot) -> Iterator[NoteRecord]:
    """What the next answer of a slot is to say."""
    if slot.ended:
        yield NoteRecord(slot.task.principal, slot.task.task, slot.profile.name, slot.ended)
    for note in slot.notes:
        yield NoteRecord(slot.task.principal, slot.task.task, "", note)
