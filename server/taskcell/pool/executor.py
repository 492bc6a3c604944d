"""Carries out the steps that the pool's state decides on."""

from __future__ import annotations

import time
from collections.abc import Iterable

import anyio
import anyio.abc
import structlog

from taskcell.errors import SandboxLost, TaskcellError, TaskMoved
from taskcell.model import TaskKey
from taskcell.pool.adoption import Inheritance
from taskcell.pool.closing import Closing
from taskcell.pool.keeper import Keeper
from taskcell.pool.launcher import Launcher
from taskcell.pool.slot import Lease, Slot, SlotState, Step
from taskcell.pool.state import Slots
from taskcell.pool.workspaces import Workspaces
from taskcell.process.record import Record
from taskcell.sandbox.sandbox import Sandbox
from taskcell.spans import span

log = structlog.get_logger(__name__)

_CLOSING = "The server is closing; the sandbox was not created."


class Executor:
    """Opens a sandbox in each slot that a step names, settles the slot whatever happens, and has others closed.

    Arguments:
        group: the pool's; everything that is begun runs in it.
    """

    def __init__(
        self,
        group: anyio.abc.TaskGroup,
        slots: Slots,
        keeper: Keeper,
        *,
        workspaces: Workspaces,
        launcher: Launcher,
        inheritance: Inheritance,
        closing: Closing,
    ) -> None:
        self._group = group
        self._slots = slots
        self._workspaces = workspaces
        self._launcher = launcher
        self._inheritance = inheritance
        self._closing = closing
        self._keeper = keeper
        self._creations: set[anyio.CancelScope] = set()
        self._changed = anyio.Event()
        self._is_stopped = self._moves = False

    def begin(self, steps: Iterable[Step]) -> None:
        """Begin what was decided, each step in a task of its own, without waiting for any."""
        for step in steps:
            slot = step.slot
            for evicted in step.evicted:
                self.close_idle(evicted)
            if slot.state is SlotState.CREATING and not slot.is_warm:
                self._workspaces.claim_founding(slot)
            if step.create and self._is_stopped:
                self._slots.failed(slot, self._closes())
            elif step.create:
                self._group.start_soon(self._create, slot)
            if step.check:
                self._group.start_soon(self._hand_out, slot)
            if step.retired is not None:
                self._closing.begin(step.retired)
                self._group.start_soon(self._closing.retire, step.retired, slot, step.at_once)

    def close_idle(self, slot: Slot) -> None:
        """Begin to close a slot that was taken out."""
        self._closing.begin(slot)
        self._keeper.expect(slot)
        self._group.start_soon(self._closing.close_idle, slot)

    @property
    def closing_tasks(self) -> set[TaskKey]:
        """Those of which something is being closed, or saved before that."""
        return self._closing.tasks

    def let_go(self, task: TaskKey) -> None:
        """Begin to forget a task that another server has."""
        for slot in self._slots.take(lambda slot: slot.task == task):
            self._closing.begin(slot)
            self._group.start_soon(self._closing.let_go, slot)

    def serve_waiting(self) -> None:
        """Begin what waiting calls need, if there is room for it now."""
        if self._slots.waiting and not self._is_stopped:
            self.begin(self._slots.assign(time.monotonic()))

    @property
    def is_stopped(self) -> bool:
        """The pool is closing."""
        return self._is_stopped

    def stop(self, *, moves: bool = False) -> None:
        """The pool is closing: from now on no sandbox is made, for nobody would close it.

        Arguments:
            moves: calls that wait for one are to go to another server; what is being made for them is given up.
        """
        self._is_stopped, self._moves = True, moves
        if moves:
            self.give_up()

    def _closes(self) -> SandboxLost:
        return TaskMoved() if self._moves else SandboxLost(_CLOSING)

    def give_up(self) -> None:
        """Cancel whatever is still being made."""
        for creation in self._creations:
            creation.cancel()

    # --- news ----------------------------------------------------------------------------------------------------

    def note_change(self) -> None:
        """A sandbox was made or closed: whoever waits in `changed` goes on."""
        self._changed.set()

    async def changed(self) -> None:
        """Wait until a sandbox is made or closed, or return at once if one was since this returned last."""
        await self._changed.wait()
        self._changed = anyio.Event()

    # --- opening -------------------------------------------------------------------------------------------------

    async def _create(self, slot: Slot) -> None:
        """Start the slot's sandbox. The call that asked for it may be gone by now; the slot is settled either way."""
        # Shielded: nobody would own a half-made container. A closing pool waits, and cancels at its own end.
        with anyio.CancelScope(shield=True) as scope:
            self._creations.add(scope)
            try:
                await self._make(slot)
            finally:
                self._creations.discard(scope)
        self.note_change()

    async def _make(self, slot: Slot) -> None:
        try:
            sandbox = await self._inheritance.adopt(slot) if slot.inherited else None
            was_inherited = sandbox is not None
            if sandbox is None:
                with span("create", profile=slot.shared_key[1]):
                    sandbox = await self._launcher.create(slot)
            files = "" if was_inherited else await self._restored(slot, sandbox)
        except TaskcellError as error:
            self._slots.failed(slot, error)
        except Exception as error:
            log.exception("a sandbox could not be created")
            self._slots.failed(slot, SandboxLost(f"The sandbox could not be created: {type(error).__name__}."))
        else:
            self._settle(slot, sandbox, kept_files=was_inherited or not sandbox.container.is_fresh, files=files)
            if was_inherited:
                self._hold_for_processes(slot, sandbox)
        finally:
            if not slot.settled.is_set():
                self._slots.failed(slot, self._closes())

    async def _hand_out(self, slot: Slot) -> None:
        """Give a warm sandbox to the task that has taken it, or make another one when it is not in order."""
        sandbox = slot.sandbox
        assert sandbox is not None
        with anyio.CancelScope(shield=True) as scope:
            self._creations.add(scope)
            try:
                if await self._launcher.taking.is_in_order(slot):
                    self._settle(slot, sandbox, kept_files=False, files=await self._restored(slot, sandbox))
                    return
            except TaskcellError as error:
                self._slots.failed(slot, error)
                return
            finally:
                self._creations.discard(scope)
                self.note_change()
                if scope.cancel_called and not slot.settled.is_set():
                    self._slots.failed(slot, self._closes())
        slot.sandbox = None
        self._group.start_soon(self._closing.close_stray, sandbox)
        await self._create(slot)

    async def _restored(self, slot: Slot, sandbox: Sandbox) -> str:
        """What to say of the task's files that were put back. Raises EngineError; the sandbox is closed then."""
        try:
            return await self._keeper.restore(slot, sandbox)
        except BaseException as error:
            self._workspaces.let_go(slot.task, sandbox.container)
            self._workspaces.record(slot.task).workspace = ""  # half of the files may be there: the next makes its own
            self._group.start_soon(self._closing.close_stray, sandbox)
            if isinstance(error, TaskcellError) or not isinstance(error, Exception):
                raise
            log.exception("a task's files could not be put back")
            reason = f"The task's files could not be put back: {type(error).__name__}. Call again."
            raise SandboxLost(reason) from error

    def _settle(self, slot: Slot, sandbox: Sandbox, *, kept_files: bool, files: str = "") -> None:
        """Make the sandbox usable. Nothing in it waits, so that no other task sees half of it."""
        self._slots.ready(slot, sandbox, kept_files=kept_files, files=files)
        sandbox.channel.on_quiet = self.serve_waiting
        sandbox.channel.when_lost(self.serve_waiting)
        if not slot.is_warm:
            self._workspaces.own(slot)
            self._group.start_soon(self._launcher.taking.name, slot)

    def _hold_for_processes(self, slot: Slot, sandbox: Sandbox) -> None:
        """Lease an adopted sandbox for the processes that still run in it, as the earlier server did.

        The one sandbox of a single call is held too, running processes or not.
        """
        records = list(sandbox.processes)
        running = [record for record in records if not record.process.has_ended]
        serving = [record for record in running if not (record.about.has_timeout or slot.is_for_one_call)]
        ending = [record for record in running if record not in serving]
        if ending or (records and slot.is_for_one_call):
            self._group.start_soon(self._see_out, self._slots.hold(slot), sandbox, ending)
        if serving:
            self._group.start_soon(self._see_out, self._slots.hold(slot, serves=True), sandbox, serving)

    async def _see_out(self, lease: Lease, sandbox: Sandbox, records: Iterable[Record]) -> None:
        try:
            async with anyio.create_task_group() as staying:
                for record in records:
                    staying.start_soon(sandbox.see_out, record)
        except Exception:  # a fault in the server: it must not end the other sandboxes, and the server with them
            log.exception("the processes of an earlier server are not waited for any longer")
        finally:
            self.begin(self._slots.withdraw(lease, time.monotonic()))
