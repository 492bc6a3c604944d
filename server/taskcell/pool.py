"""Task -> sandbox: who gets which container, one creation at a time for each, and every one closed at the end.

Each decision is made synchronously on plain state (`Slots`); what it says to create or to close is done after it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
import anyio.abc
import structlog

from taskcell import sudo
from taskcell.engine.base import Container, ContainerSpec, Engine
from taskcell.errors import SandboxLost, TaskcellError
from taskcell.model import TaskKey
from taskcell.policy import AuthorizedProfile
from taskcell.sandbox import GRACE, KILL_SLACK, Sandbox, SandboxState
from taskcell.slots import Decision, Slot, Slots, SlotState
from taskcell.supervisor.channel import Channel

log = structlog.get_logger(__name__)

#: Seconds for everything that a closing pool does; clients kill a server that takes longer than about five.
CLOSE_TIMEOUT = 4.0
#: Seconds that processes have at a clean end of the server, and then the supervisor to kill them: inside CLOSE_TIMEOUT.
EXIT_GRACE = 2.0
EXIT_KILL_SLACK = 0.7
#: Seconds to remove a container whose creation failed half-way; inside CLOSE_TIMEOUT when the pool closes meanwhile.
UNDO_TIMEOUT = 2.0


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """Settings of the pool, in seconds and bytes.

    Arguments:
        shell: the terminal's, whose login profile is read once for each sandbox.
        sudo_password: what the user of images for sudo has already; None: random for each sandbox.
        deployment: which servers may take up each other's sandboxes.
    """

    deployment: str
    orphan_ttl: float
    workspace_size: int
    output_chars: int
    spool: int
    max_processes: int
    shell: tuple[str, ...]
    sudo_password: str | None = field(default=None, repr=False)


@dataclass(slots=True)
class TaskRecord:
    """What the sandboxes of one task share."""

    key: TaskKey
    workspace: str
    processes: int = 0
    made: bool = False


class Pool:
    """Owns every sandbox of this server. Use as an async context manager; leaving it closes all of them."""

    def __init__(self, engine: Engine, options: PoolOptions) -> None:
        self._engine = engine
        self._options = options
        self._instance = secrets.token_hex(8)
        self._slots = Slots()
        self._tasks: dict[TaskKey, TaskRecord] = {}
        self._retiring: set[Slot] = set()
        self._group: anyio.abc.TaskGroup | None = None
        self._closing = False
        self._creations: set[anyio.CancelScope] = set()

    async def __aenter__(self) -> Pool:
        self._group = await anyio.create_task_group().__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        group = self._group
        assert group is not None
        self._closing = True
        with anyio.move_on_after(CLOSE_TIMEOUT, shield=True) as bound:
            leaving = {*self._slots.take(lambda slot: True), *self._retiring}
            async with anyio.create_task_group() as closing:
                for key, record in self._tasks.items():
                    slots = [slot for slot in leaving if slot.key[0] == key]
                    closing.start_soon(self._close_task, slots, record, EXIT_GRACE, EXIT_KILL_SLACK)
        if bound.cancelled_caught:
            log.warning("not every sandbox was closed in time; they remove themselves", after=self._options.orphan_ttl)
        group.cancel_scope.cancel()
        for creation in self._creations:
            creation.cancel()
        await group.__aexit__(None, None, None)

    # --- leases ------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def lease(self, task: TaskKey, profile: AuthorizedProfile) -> AsyncIterator[tuple[Sandbox, list[str]]]:
        """The task's sandbox for this profile, and notes for the answer; it is not closed while it is leased.

        Raises EngineError when it cannot be created.
        """
        group = self._open_group()
        workspace = self._record(task).workspace
        decision = self._slots.lease((task, profile.profile.name), profile, workspace, time.monotonic())
        slot = decision.slot
        self._act(group, decision)
        try:
            await slot.settled.wait()
            if slot.error is not None:
                raise slot.error
            assert slot.sandbox is not None
            yield slot.sandbox, self._slots.take_notes(slot)
        finally:
            # Nothing here may wait: a cancelled caller passes through.
            self._act(group, self._slots.release(slot, time.monotonic()))

    def _act(self, group: anyio.abc.TaskGroup, decision: Decision | None) -> None:
        if decision is None:
            return
        if decision.create:
            group.start_soon(self._create, decision.slot)
        if decision.retired is not None:
            self._retiring.add(decision.retired)
            group.start_soon(self._retire, decision.retired, decision.slot, decision.at_once)

    async def _retire(self, old: Slot, successor: Slot, at_once: bool) -> None:
        # A tmpfs volume lives only while it is mounted: a successor holds it before the old one goes.
        await successor.settled.wait()
        while successor.error is not None:
            heir = self._slots.heir(old)
            if old.state is SlotState.READY:  # put back: no successor came to be
                self._retiring.discard(old)
                return
            if heir is None:
                break
            successor = heir
            await successor.settled.wait()
        if old.leases and not at_once:
            await old.idle.wait()
        await self._close_one(old, GRACE, KILL_SLACK)
        self._retiring.discard(old)

    def _open_group(self) -> anyio.abc.TaskGroup:
        if self._group is None or self._closing:
            raise SandboxLost("The server is closing: nothing new is started, and every sandbox is closed.")
        return self._group

    def next_process_id(self, task: TaskKey) -> str:
        """`p1`, `p2`, … unique in the task."""
        record = self._record(task)
        record.processes += 1
        return f"p{record.processes}"

    def _record(self, key: TaskKey) -> TaskRecord:
        record = self._tasks.get(key)
        if record is None:
            # A name is never used twice: a volume that is being removed must not be taken for a new one.
            name = f"taskcell-ws-{self._instance}-{key.digest}-{secrets.token_hex(4)}"
            record = self._tasks[key] = TaskRecord(key, name)
        return record

    # --- creation ----------------------------------------------------------------------------------------------

    async def _create(self, slot: Slot) -> None:
        """Start the slot's sandbox. Whoever asked for it may be gone by now; the slot is settled either way."""
        # Shielded: a half-made container would be nobody's. A closing pool waits, and cancels at its own end.
        with anyio.CancelScope(shield=True) as scope:
            self._creations.add(scope)
            try:
                await self._create_shielded(slot)
            finally:
                self._creations.discard(scope)

    async def _create_shielded(self, slot: Slot) -> None:
        container: Container | None = None
        try:
            container = await self._start_container(slot)
            sandbox = await self._connect(container, slot)
        except TaskcellError as error:
            self._slots.failed(slot, error)
        except Exception as error:
            log.exception("a sandbox could not be created")
            self._slots.failed(slot, SandboxLost(f"The sandbox could not be created: {type(error).__name__}."))
        else:
            self._slots.ready(slot, sandbox)
            return
        finally:
            if not slot.settled.is_set():
                self._slots.failed(slot, SandboxLost("The server is closing; the sandbox was not created."))
            if container is not None and slot.error is not None:
                with anyio.move_on_after(UNDO_TIMEOUT, shield=True):
                    await self._remove(container, slot)

    async def _start_container(self, slot: Slot) -> Container:
        task, name = slot.shared_key
        labels = self._labels(name)
        await self._engine.create_workspace(slot.workspace, self._options.workspace_size, labels)
        record = self._tasks.get(task)
        if record is not None and record.workspace == slot.workspace:
            record.made = True
        spec = ContainerSpec(
            profile=slot.profile,
            name=f"taskcell-{task.digest[:8]}-{name}-{secrets.token_hex(4)}",
            workspace=slot.workspace,
            workspace_size=self._options.workspace_size,
            labels=labels,
        )
        return await self._engine.start(spec)

    def _labels(self, profile: str) -> dict[str, str]:
        return {
            "taskcell": "1",
            "taskcell.deployment": self._options.deployment,
            "taskcell.profile": profile,
            "taskcell.instance": self._instance,
        }

    async def _connect(self, container: Container, slot: Slot) -> Sandbox:
        assert self._group is not None
        channel = Channel(secrets.token_hex(24).encode(), self._options.orphan_ttl)
        await self._group.start(self._serve_channel, channel, container)
        sandbox = Sandbox(
            profile=slot.profile,
            container=container,
            channel=channel,
            output_chars=self._options.output_chars,
            spool=self._options.spool,
            max_processes=self._options.max_processes,
        )
        if slot.profile.profile.sudo:
            sandbox.sudo_problem = await sudo.set_up(channel, slot.profile.profile, self._options.sudo_password)
        if slot.profile.profile.kind == "terminal":
            await sandbox.read_login_profile(self._options.shell)
        return sandbox

    async def _serve_channel(
        self, channel: Channel, container: Container, *, task_status: anyio.abc.TaskStatus[None]
    ) -> None:
        started = False

        class Started:
            def started(self, value: None = None) -> None:
                nonlocal started
                started = True
                task_status.started()

        try:
            async with self._engine.connect(container) as stream:
                await channel.run(stream, task_status=Started())
        except TaskcellError as error:
            if not started:
                why = await self._engine.why_dead(container)
                raise SandboxLost(f"{error} {why}".strip()) from error
            log.warning("a channel ended", container=container.name, reason=str(error))

    # --- the end -----------------------------------------------------------------------------------------------

    async def close_task(self, task: TaskKey) -> int:
        """Close all of the task's sandboxes and delete its workspace; answers how many there were."""
        group = self._open_group()
        taken = self._slots.take(lambda slot: slot.key[0] == task)
        slots = {*taken, *(slot for slot in self._retiring if slot.key[0] == task)}
        record = self._tasks.pop(task, None)
        self._retiring.update(slots)
        # In the pool's own group: a caller that gives up leaves nothing half closed.
        closed = anyio.Event()
        group.start_soon(self._close_and_tell, slots, record, closed)
        await closed.wait()
        return len(taken)

    async def _close_and_tell(self, slots: set[Slot], record: TaskRecord | None, closed: anyio.Event) -> None:
        await self._close_task(slots, record, GRACE, KILL_SLACK)
        self._retiring.difference_update(slots)
        closed.set()

    async def _close_task(
        self, slots: Iterable[Slot], record: TaskRecord | None, grace: float, kill_slack: float
    ) -> None:
        """Close sandboxes of one task, and then remove its workspace, but for a container that is kept with it."""
        async with anyio.create_task_group() as closing:
            for slot in slots:
                closing.start_soon(self._close_one, slot, grace, kill_slack)
        kept = any(not slot.profile.profile.remove for slot in slots)
        if record is not None and record.made and not kept:
            await self._remove_workspace(record.workspace)

    async def reset(self, task: TaskKey) -> list[str]:
        """Give each of the task's sandboxes a fresh successor with the same workspace.

        Answers a sentence for each; a sandbox that had died may have taken the files along. Raises EngineError.
        """
        group = self._open_group()
        decisions = self._slots.replace(lambda slot: slot.key[0] == task, time.monotonic())
        for decision in decisions:
            self._act(group, decision)
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

    def sandboxes(self, task: TaskKey) -> list[Sandbox]:
        """The task's sandboxes, with those that have a successor but are not closed before what runs in them ends."""
        slots = [*self.of_task(task), *(slot for slot in self._retiring if slot.key[0] == task)]
        return [slot.sandbox for slot in slots if slot.sandbox and slot.sandbox.state is SandboxState.READY]

    def of_task(self, task: TaskKey) -> list[Slot]:
        return [slot for slot in self._slots if slot.key[0] == task]

    async def _close_one(self, slot: Slot, grace: float, kill_slack: float) -> None:
        await slot.settled.wait()
        sandbox = slot.sandbox
        if sandbox is None:
            return
        await sandbox.close(grace)
        await sandbox.wait_closed(grace + kill_slack)
        await self._remove(sandbox.container, slot)
        self._slots.closed(slot)

    async def _remove(self, container: Container, slot: Slot) -> None:
        try:
            await self._engine.remove(container, keep=not slot.profile.profile.remove)
        except TaskcellError as error:
            log.warning("a container could not be removed; it removes itself", name=container.name, reason=str(error))

    async def _remove_workspace(self, name: str) -> None:
        try:
            await self._engine.remove_workspace(name)
        except TaskcellError as error:
            log.warning("a workspace could not be removed", name=name, reason=str(error))
