"""Closes sandboxes: one that is replaced, an idle one, all of a task, or all of the server."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable

import anyio
import structlog

from taskcell.engine.base import Engine
from taskcell.errors import TaskcellError
from taskcell.model import TaskKey
from taskcell.pool.keeper import Keeper
from taskcell.pool.launcher import Launcher
from taskcell.pool.leftovers import Leftovers
from taskcell.pool.slot import Slot, SlotState
from taskcell.pool.state import Slots
from taskcell.pool.workspaces import TaskRecord, Workspaces
from taskcell.sandbox.sandbox import Sandbox
from taskcell.sandbox.spawn import GRACE
from taskcell.sandbox.wait import KILL_SLACK

log = structlog.get_logger(__name__)

#: Seconds for everything that a closing pool does; clients kill a server that takes longer than about five.
CLOSE_TIMEOUT = 4.0
#: Seconds that processes have at a clean end of the server, and then the supervisor to kill them: inside CLOSE_TIMEOUT.
EXIT_GRACE = 2.0
EXIT_KILL_SLACK = 0.7
#: Seconds between two looks whether the engine has removed the last container; a look is one call for all of them.
GONE_POLL = 0.1
#: Seconds that the engine has to remove a container by itself. One that fails at that (Docker 20.10 does when the
#: container's folder is written to meanwhile) leaves a dead container for good; a request then removes it.
GONE_PATIENCE = 1.0
#: Seconds of CLOSE_TIMEOUT that are kept for one request about volumes, whatever the sandboxes take.
SWEEP_TIME = 0.5


class Closing:
    """Closes sandboxes, and remembers which are being closed. No request waits for it, but for one that closes a task.

    Arguments:
        deployment_id: as in the containers' labels.
        instance: the server's own name there.
    """

    def __init__(
        self,
        engine: Engine,
        launcher: Launcher,
        workspaces: Workspaces,
        slots: Slots,
        keeper: Keeper,
        *,
        leftovers: Leftovers,
        deployment_id: str,
        instance: str,
    ) -> None:
        self._engine = engine
        self._launcher = launcher
        self._workspaces = workspaces
        self._slots = slots
        self._keeper = keeper
        self._leftovers = leftovers
        self._deployment_id = deployment_id
        self._instance = instance
        self._leaving: set[Slot] = set()
        self._looking = anyio.Lock()
        self._looked = 0.0
        self._listed: set[str] = set()

    def begin(self, slot: Slot) -> None:
        """From now on the slot counts as leaving; one of the methods below closes it."""
        self._leaving.add(slot)

    @property
    def tasks(self) -> set[TaskKey]:
        """Those of which something is being closed."""
        return {slot.task for slot in self._leaving if not slot.is_warm}

    def of_task(self, task: TaskKey) -> list[Slot]:
        return [slot for slot in self._leaving if slot.task == task]

    async def retire(self, old: Slot, successor: Slot, at_once: bool) -> None:
        """Close a slot when its successor is ready: a workspace in memory lives only while it is mounted.

        Arguments:
            at_once: do not wait for the calls that still run in the old one.
        """
        await successor.settled.wait()
        while successor.error is not None:
            heir = self._slots.heir(old)
            if old.is_in_place:  # put back: no successor came to be
                self._leaving.discard(old)
                return
            if heir is None:
                break
            successor = heir
            await successor.settled.wait()
        if old.leases and not at_once:
            await old.idle.wait()
        if old.state is not SlotState.CLOSED:  # a closed task did not wait for its calls
            await self._close_one(old)
        self._leaving.discard(old)

    async def close_idle(self, slot: Slot) -> None:
        """Save its files and close a slot that no call uses; remove the workspace with the last slot of its task."""
        await self._keeper.save_last(slot)
        await self._close_one(slot)
        self._leaving.discard(slot)
        if not slot.is_warm:
            await self._workspaces.drop(self._workspaces.record(slot.task))

    async def let_go(self, slot: Slot) -> None:
        """Forget a sandbox that another server has taken. Nothing in it is touched, and its files stay there."""
        await slot.settled.wait()
        if slot.sandbox is not None:
            slot.sandbox.channel.give_up("another server of the deployment has taken the task over")
        self._workspaces.forget(slot.task)
        slot.state = SlotState.CLOSED
        self._leaving.discard(slot)

    async def close_stray(self, sandbox: Sandbox) -> None:
        """Close a warm sandbox that was not in order."""
        await sandbox.close(0)
        await sandbox.wait_closed(KILL_SLACK)
        await self._launcher.remove(sandbox.container, sandbox.profile)

    async def close_task(self, slots: set[Slot], record: TaskRecord | None, closed: anyio.Event) -> None:
        """Close a task's sandboxes, then remove its workspace unless a container is kept with it; set `closed`."""
        try:
            async with anyio.create_task_group() as closing:
                for slot in slots:
                    closing.start_soon(self._close_one, slot)
            if record is not None and all(slot.profile.remove for slot in slots):
                record.holders.clear()
                await self._workspaces.drop(record)
            self._leaving.difference_update(slots)
        finally:
            closed.set()

    async def _close_one(self, slot: Slot) -> None:
        await slot.settled.wait()
        sandbox = slot.sandbox
        if sandbox is None:
            return
        await sandbox.close(GRACE)
        await sandbox.wait_closed(GRACE + KILL_SLACK)
        await self._launcher.remove(sandbox.container, slot.profile)
        self._workspaces.let_go(slot.task, sandbox.container)
        slot.state = SlotState.CLOSED

    # --- the server's end ----------------------------------------------------------------------------------------

    async def close_all_but_kept(self) -> None:
        """Close what the deployment's next server has no use for: sandboxes without a task, or without its files."""
        useless = self._slots.take(lambda slot: slot.inherited is None and (slot.is_warm or not slot.holds_files))
        await self.close_everything({*useless, *self._leaving})

    async def close_everything(self, chosen: Iterable[Slot] | None = None) -> None:
        """Close all sandboxes, or some: shielded, and bounded by CLOSE_TIMEOUT.

        Each is closed for itself, so that one that cannot be closed in time keeps no other. It is named in the log.
        """
        is_the_end = chosen is None
        slots = {*self._slots.take(lambda slot: True), *self._leaving} if chosen is None else set(chosen)
        if not slots and not (is_the_end and self._leftovers.any):
            return
        left, tasks = set(slots), {slot.task for slot in slots}
        if is_the_end:
            tasks |= {record.key for record in self._workspaces.records()}
        have_ended = anyio.Event()
        with anyio.move_on_after(CLOSE_TIMEOUT, shield=True):
            async with anyio.create_task_group() as closing:
                if is_the_end:
                    closing.start_soon(self._sweep, have_ended)
                    closing.start_soon(self._leftovers.remove)
                async with anyio.create_task_group() as ends:
                    for task in tasks:
                        own = [slot for slot in slots if slot.task == task]
                        ends.start_soon(self._end_task, task, own, left, is_the_end)
                have_ended.set()
        names = sorted({*map(_name, left), *(self._leftovers.names if is_the_end else ())})
        if names:
            log.warning("not every sandbox could be closed in time; the rest removes itself or is removed", names=names)

    async def _end_task(self, task: TaskKey, slots: Collection[Slot], left: set[Slot], is_the_end: bool) -> None:
        """Close a task's sandboxes, and at the server's end remove its workspace unless a container is kept with it."""
        async with anyio.create_task_group() as ends:
            for slot in slots:
                ends.start_soon(self._end, slot, left)
        if is_the_end and left.isdisjoint(slots) and all(slot.profile.remove for slot in slots):
            record = self._workspaces.forget(task)
            if record is not None:
                record.holders.clear()
            await self._workspaces.drop(record)

    async def _end(self, slot: Slot, left: set[Slot]) -> None:
        """Ask the supervisor to end; then the engine removes the container by itself."""
        await slot.settled.wait()
        sandbox, is_gone = slot.sandbox, True
        if sandbox is not None:
            # A supervisor whose channel is lost cannot be asked, and may still run.
            was_asked = sandbox.channel.alive
            await sandbox.close(EXIT_GRACE)
            has_ended = was_asked and await sandbox.wait_closed(EXIT_GRACE + EXIT_KILL_SLACK)
            if has_ended and slot.profile.remove and not sandbox.container.is_child:
                is_gone = await self._removed(sandbox)
            else:
                is_gone = await self._launcher.remove(sandbox.container, slot.profile)
        slot.state = SlotState.CLOSED
        if is_gone:
            left.discard(slot)

    async def _removed(self, sandbox: Sandbox) -> bool:
        """Wait until the engine has removed the container, and remove it after GONE_PATIENCE; whether it is gone."""
        patience = time.monotonic() + GONE_PATIENCE
        try:
            while await self._is_listed(sandbox):
                if time.monotonic() > patience:
                    return await self._launcher.remove(sandbox.container, sandbox.profile)
                await anyio.sleep(GONE_POLL)
        except TaskcellError:
            return False
        return True

    async def _is_listed(self, sandbox: Sandbox) -> bool:
        """Whether the engine has the container: one look for all that ask within GONE_POLL. Raises EngineError."""
        async with self._looking:
            if time.monotonic() - self._looked >= GONE_POLL:
                self._listed = {found.id for found in await self._engine.containers(self._deployment_id)}
                self._looked = time.monotonic()
        return sandbox.container.id in self._listed

    async def _sweep(self, have_ended: anyio.Event) -> None:
        """Remove what a restarted engine left of this server's volumes, when its sandboxes have ended or time is up."""
        with anyio.move_on_after(CLOSE_TIMEOUT - SWEEP_TIME):
            await have_ended.wait()
        try:
            await self._engine.sweep_own(self._instance)
        except TaskcellError as error:
            log.warning("workspaces may be left; the next server removes them", reason=str(error))


def _name(slot: Slot) -> str:
    return f"(one for {slot.shared_key[1]}, still being made)" if slot.sandbox is None else slot.sandbox.container.name
