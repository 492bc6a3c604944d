"""The beginning of sandboxes: one that is made, one that an earlier server left, and one that stood ready."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import anyio
import anyio.abc
import structlog

from taskcell.errors import SandboxLost, TaskcellError
from taskcell.pool.adoption import Inheritance
from taskcell.pool.closing import Closing
from taskcell.pool.launcher import Launcher
from taskcell.pool.slot import Decision, Lease, Slot
from taskcell.pool.state import Slots
from taskcell.process.record import Record
from taskcell.sandbox.sandbox import Sandbox

log = structlog.get_logger(__name__)


class Opening:
    """Puts a sandbox into each place that was decided on, and settles the place, whatever came of it.

    `group` runs what goes on after that: it is the pool's.

    Arguments:
        act, serve_waiting: the pool's.
        wake: called when a creation has ended, well or not; it must not block.
    """

    def __init__(
        self,
        slots: Slots,
        launcher: Launcher,
        inheritance: Inheritance,
        closing: Closing,
        *,
        act: Callable[[Iterable[Decision]], None],
        serve_waiting: Callable[[], None],
        wake: Callable[[], None],
    ) -> None:
        self._slots = slots
        self._launcher = launcher
        self._inheritance = inheritance
        self._closing = closing
        self._act = act
        self._serve_waiting = serve_waiting
        self._wake = wake
        self._creations: set[anyio.CancelScope] = set()
        self.group: anyio.abc.TaskGroup | None = None

    async def create(self, slot: Slot) -> None:
        """Start the slot's sandbox. Whoever asked for it may be gone by now; the slot is settled either way."""
        # Shielded: a half-made container would be nobody's. A closing pool waits, and cancels at its own end.
        with anyio.CancelScope(shield=True) as scope:
            self._creations.add(scope)
            try:
                await self._make(slot)
            finally:
                self._creations.discard(scope)
        self._wake()

    async def _make(self, slot: Slot) -> None:
        try:
            sandbox = await self._inheritance.take_up(slot, self._launcher) if slot.inherited else None
            was_inherited = sandbox is not None
            if sandbox is None:
                sandbox = await self._launcher.create(slot)
        except TaskcellError as error:
            self._slots.failed(slot, error)
        except Exception as error:
            log.exception("a sandbox could not be created")
            self._slots.failed(slot, SandboxLost(f"The sandbox could not be created: {type(error).__name__}."))
        else:
            self._settle(slot, sandbox, kept_files=was_inherited or not sandbox.container.is_fresh)
            if was_inherited:
                self._look_after(slot, sandbox)
        finally:
            if not slot.settled.is_set():
                self._slots.failed(slot, SandboxLost("The server is closing; the sandbox was not created."))

    async def hand_out(self, slot: Slot) -> None:
        """Give a warm sandbox to the task that has taken it, or make another where it is not in order."""
        sandbox = slot.sandbox
        assert sandbox is not None
        with anyio.CancelScope(shield=True) as scope:
            self._creations.add(scope)
            try:
                if await self._launcher.is_in_order(slot):
                    self._settle(slot, sandbox, kept_files=False)
                    return
            finally:
                self._creations.discard(scope)
                self._wake()
                if scope.cancel_called and not slot.settled.is_set():
                    self._slots.failed(slot, SandboxLost("The server is closing; the sandbox was not created."))
        slot.sandbox = None
        assert self.group is not None
        self.group.start_soon(self._closing.close_stray, sandbox)
        await self.create(slot)

    def _settle(self, slot: Slot, sandbox: Sandbox, *, kept_files: bool) -> None:
        """Nothing in it waits, so that no two tasks see half of it."""
        assert self.group is not None
        self._slots.ready(slot, sandbox, kept_files=kept_files)
        sandbox.channel.on_quiet = self._serve_waiting
        sandbox.channel.when_lost(self._serve_waiting)
        if not slot.is_warm:
            self._launcher.own(slot)
            if sandbox.container.name.startswith("taskcell-warm-"):
                self.group.start_soon(self._launcher.rename, slot)

    def _look_after(self, slot: Slot, sandbox: Sandbox) -> None:
        """What an earlier server has left running keeps its place, as it did there; so does a call's only sandbox."""
        assert self.group is not None
        records = list(sandbox.processes)
        running = [record for record in records if not record.process.has_ended]
        if running or (records and slot.is_for_one_call):
            self.group.start_soon(self._see_out, self._slots.hold(slot), sandbox, running)

    async def _see_out(self, lease: Lease, sandbox: Sandbox, records: Iterable[Record]) -> None:
        try:
            async with anyio.create_task_group() as staying:
                for record in records:
                    staying.start_soon(sandbox.see_out, record)
        except Exception:  # a fault of ours: it must not take the other sandboxes, and the server, along
            log.exception("processes of an earlier server are not looked after any more")
        finally:
            self._act(self._slots.withdraw(lease, time.monotonic()))

    def cancel(self) -> None:
        """The pool has ended: give up whatever is still being made."""
        for creation in self._creations:
            creation.cancel()
