"""What a pool does by itself: close idle sandboxes, keep some warm, notice dead ones, write down how things stand."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import anyio
import anyio.abc
import anyio.to_thread
import structlog

from taskcell.deployment.records import Deployment, SandboxRecord
from taskcell.errors import SandboxLost
from taskcell.pool.closing import Closing
from taskcell.pool.launcher import Launcher
from taskcell.pool.slot import Decision, Slot, SlotState
from taskcell.pool.state import Slots

log = structlog.get_logger(__name__)

#: Seconds between two looks at all sandboxes: how exact `idle_ttl` is, and how old what other servers read may be.
TICK = 1.0
#: Seconds to leave the engine alone after a creation: a warm sandbox must not slow down the call that took the last.
WARM_DELAY = 0.25
#: Seconds without a warm sandbox after one could not be made.
WARM_RETRY = 30.0
#: Seconds of silence after which a sandbox that is in use is asked whether it lives, and to wait for its answer. Its
#: supervisor comes before everything that it runs, so that only a paused container or a hanging engine takes longer.
QUIET = 5.0
PING_TIMEOUT = 15.0


class Upkeep:
    """Runs in the pool's own task group from the first call on.

    Arguments:
        idle_ttl: seconds without a call or a process after which a sandbox is closed.
        act, close_idle: the pool's.
    """

    def __init__(
        self,
        slots: Slots,
        launcher: Launcher,
        deployment: Deployment,
        *,
        idle_ttl: float,
        act: Callable[[Iterable[Decision]], None],
        close_idle: Callable[[Slot], None],
    ) -> None:
        self._slots = slots
        self._launcher = launcher
        self._deployment = deployment
        self._idle_ttl = idle_ttl
        self._act = act
        self._close_idle = close_idle
        self._woken = anyio.Event()
        self._written: list[SandboxRecord] | None = None
        self._warm: Slot | None = None
        self._warm_after = 0.0

    def wake(self) -> None:
        """Something was made or closed: look at once, not at the next tick."""
        self._woken.set()

    async def run(self) -> None:
        """Until it is cancelled."""
        async with anyio.create_task_group() as asking:
            while True:
                try:
                    await self._look(asking)
                except Exception:  # whatever it is: calls must not end with what is only done beside them
                    log.exception("the upkeep of the pool failed, and goes on")
                with anyio.move_on_after(min(TICK, self._idle_ttl)):
                    await self._woken.wait()
                    await anyio.sleep(WARM_DELAY)
                self._woken = anyio.Event()

    async def _look(self, asking: anyio.abc.TaskGroup) -> None:
        now = time.monotonic()
        for slot in self._slots.take_idle(now, self._idle_ttl):
            self._close_idle(slot)
        self._act(self._slots.assign(now))
        for slot in self._slots:
            if self._is_suspect(slot, now):
                asking.start_soon(self._ask, slot)
        self._keep_warm(now)
        await self._write()

    # --- warm ----------------------------------------------------------------------------------------------------

    def _keep_warm(self, now: float) -> None:
        if self._warm is not None and self._warm.state is SlotState.FAILED:
            log.warning("no sandbox could be made ready for the next task", reason=str(self._warm.error))
            self._warm_after = now + WARM_RETRY
        self._warm = None
        if now < self._warm_after:
            return
        decisions = self._slots.next_warm(now)
        self._act(decisions)
        self._warm = next((decision.slot for decision in decisions if decision.create), None)

    # --- the dead ------------------------------------------------------------------------------------------------

    @staticmethod
    def _is_suspect(slot: Slot, now: float) -> bool:
        sandbox = slot.sandbox
        return slot.leases > 0 and sandbox is not None and sandbox.usable and now - sandbox.channel.heard > QUIET

    @staticmethod
    async def _ask(slot: Slot) -> None:
        sandbox = slot.sandbox
        if sandbox is None or sandbox.channel.is_asked:
            return
        try:
            with anyio.fail_after(PING_TIMEOUT):
                await sandbox.channel.ping()
        except TimeoutError:
            sandbox.channel.give_up("its supervisor does not answer: the container is paused, or the engine hangs")
        except SandboxLost:
            return

    # --- what others read ----------------------------------------------------------------------------------------

    async def _write(self) -> None:
        if not self._deployment.is_shared:
            return
        records = self.records()
        if records != self._written:
            self._written = records
            await anyio.to_thread.run_sync(self._deployment.write, records)

    def records(self) -> list[SandboxRecord]:
        """Every sandbox that another server could use or should know of."""
        shift = time.time() - time.monotonic()
        return [
            record
            for slot in self._slots
            if (record := slot.inherited or (self._record(slot, shift) if slot.sandbox is not None else None))
        ]

    def _record(self, slot: Slot, shift: float) -> SandboxRecord:
        sandbox, task = slot.sandbox, slot.task
        assert sandbox is not None
        idle_since = 0.0 if slot.is_busy else round(slot.quiet_since + shift, 1)
        return SandboxRecord(
            container=sandbox.container.id,
            name=sandbox.container.name,
            principal=task.principal,
            task=task.task,
            profile=slot.profile.profile.name,
            fingerprint="" if slot.outdated else self._fingerprint(slot),
            nonce=slot.nonce,
            workspace=sandbox.container.volume,
            is_owner=sandbox.container.is_owner,
            is_in_memory=not self._slots.bounds.persistent,
            created=round(slot.created + shift, 1),
            idle_since=idle_since,
            processes=len(sandbox.channel.living),
            commands=0 if slot.is_warm else self._launcher.record(task).processes,
        )

    def _fingerprint(self, slot: Slot) -> str:
        if not slot.fingerprint:
            slot.fingerprint = self._deployment.fingerprint(slot.profile.profile)
        return slot.fingerprint

    async def keep_all(self, closing: Closing) -> None:
        """The server ends and its sandboxes live on: write down how they stand, and close what is nobody's."""
        useless = self._slots.take(lambda slot: slot.inherited is None and (slot.is_warm or not slot.holds_files))
        await closing.close_everything([*useless, *closing.leaving])
        with anyio.CancelScope(shield=True):
            await self._write()
