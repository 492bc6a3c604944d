"""From a place in the pool to a sandbox that can be used: its container, its channel, and whose files it sees."""

from __future__ import annotations

import secrets
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import anyio
import anyio.abc
import structlog

from taskcell.deployment.records import Deployment
from taskcell.engine.base import Container, ContainerSpec, Engine, Holder, Workspace
from taskcell.errors import SandboxLost, TaskcellError
from taskcell.model import TaskKey
from taskcell.policy.policy import AuthorizedProfile
from taskcell.pool.slot import Slot
from taskcell.sandbox import sudo
from taskcell.sandbox.sandbox import Sandbox
from taskcell.supervisor.channel import Channel

log = structlog.get_logger(__name__)

#: Seconds to remove a container whose creation failed half-way; inside CLOSE_TIMEOUT when the pool closes meanwhile.
UNDO_TIMEOUT = 2.0
#: Seconds that a warm sandbox has to prove that it is in order; making another one takes less.
CHECK_TIMEOUT = 0.5
#: Seconds to leave the engine to the first call of the task that has taken a warm sandbox.
RENAME_DELAY = 0.2


@dataclass(frozen=True, slots=True)
class LaunchOptions:
    """What every sandbox of the pool has in common. Sizes in bytes, times in seconds.

    Arguments:
        shell: the terminal's, whose login profile is read once for each sandbox.
        max_processes: that run in one sandbox at a time.
        persistent, root: files are on disk, in engine volumes or in folders below `root`.
        sudo_password: what the user of images for sudo has already; None: random for each sandbox.
    """

    deployment: str
    orphan_ttl: float
    workspace_size: int
    output_chars: int
    spool: int
    max_processes: int
    shell: tuple[str, ...]
    persistent: bool = False
    root: Path | None = None
    sudo_password: str | None = field(default=None, repr=False)


@dataclass(slots=True)
class TaskRecord:
    """What the sandboxes of one task share.

    Arguments:
        workspace: name of the volume with its files; empty where there is none yet.
        is_owned: the engine removes that volume by itself with the last container.
        holders: containers that were started with it and not removed yet, by id, with their channels.
        founder: the slot whose container is to make the workspace.
        processes: how many commands the task has had.
    """

    key: TaskKey
    workspace: str = ""
    is_owned: bool = True
    holders: dict[str, tuple[Holder, Channel | None]] = field(default_factory=dict)
    founder: Slot | None = None
    processes: int = 0

    @property
    def is_held(self) -> bool:
        """A container with the workspace certainly runs."""
        return any(channel is not None and channel.alive for _, channel in self.holders.values())


class Launcher:
    """Makes sandboxes and lets go of them. `group` runs their channels.

    Arguments:
        instance: the server's own name among those of its deployment.
    """

    def __init__(self, engine: Engine, options: LaunchOptions, deployment: Deployment, instance: str) -> None:
        self._engine = engine
        self._options = options
        self._deployment = deployment
        self._instance = instance
        self._tasks: dict[TaskKey, TaskRecord] = {}
        self.group: anyio.abc.TaskGroup | None = None

    def record(self, key: TaskKey) -> TaskRecord:
        record = self._tasks.get(key)
        if record is None:
            record = self._tasks[key] = TaskRecord(key)
        return record

    def number_on(self, key: TaskKey, commands: int) -> None:
        """The task has had so many commands already: no later one gets the name of one of them."""
        record = self.record(key)
        record.processes = max(record.processes, commands)

    def forget(self, key: TaskKey) -> TaskRecord | None:
        """From now on the task is a new one, with a workspace of its own."""
        return self._tasks.pop(key, None)

    def records(self) -> list[TaskRecord]:
        return list(self._tasks.values())

    # --- making --------------------------------------------------------------------------------------------------

    def claim_founding(self, slot: Slot) -> None:
        """The first slot of a task that is made brings its workspace; it may be one that was begun for nobody."""
        record = self.record(slot.task)
        if record.founder is None or record.founder.settled.is_set():
            record.founder = slot

    async def create(self, slot: Slot) -> Sandbox:
        """Start a container and connect to it. Raises TaskcellError; nothing is left of it then."""
        nonce = secrets.token_hex(16)
        container: Container | None = None
        try:
            container = await self._start(slot)
            sandbox = await self._connect(container, slot, nonce)
        except BaseException:
            if container is not None:
                with anyio.move_on_after(UNDO_TIMEOUT, shield=True):
                    await self.remove(container, slot.profile)
                self.let_go(slot.task, container)
            raise
        slot.nonce = nonce
        return sandbox

    async def _start(self, slot: Slot) -> Container:
        if slot.is_warm:
            return await self._engine.start(self._spec(slot, Workspace(self._options.workspace_size)))
        record = self.record(slot.task)
        # Two containers that each make a workspace would give one task two: the others wait for the founder's.
        while not record.is_held and record.founder is not None and record.founder is not slot:
            if record.founder.settled.is_set():
                record.founder = slot
            else:
                await record.founder.settled.wait()
        workspace, before = await self._workspace(record), record.workspace
        container = await self._engine.start(self._spec(slot, workspace))
        self._hold(record, container, slot.profile, None)
        if before and record.workspace != before and self.group is not None:
            self.group.start_soon(self._remove_volume, before)  # an engine that was restarted has left it
        return container

    async def _workspace(self, record: TaskRecord) -> Workspace:
        options, digest = self._options, record.key.digest
        if not options.persistent:
            holders = tuple(holder for holder, _ in record.holders.values())
            return Workspace(options.workspace_size, record.workspace, holders)
        folder = str(options.root / digest) if options.root is not None else ""
        name = "" if folder else f"taskcell-data-{options.deployment}-{digest}"
        # Each time: `taskcell rm --purge` may have deleted it, and the note, under a server that lives.
        await anyio.to_thread.run_sync(self._deployment.note_workspace, record.key, folder or name)
        return Workspace(options.workspace_size, name, persistent=True, folder=folder)

    def _spec(self, slot: Slot, workspace: Workspace) -> ContainerSpec:
        profile = slot.profile.profile.name
        labels = {
            "taskcell": "1",
            "taskcell.deployment": self._options.deployment,
            "taskcell.profile": profile,
            "taskcell.instance": self._instance,
        }
        return ContainerSpec(profile=slot.profile, name=container_name(slot), workspace=workspace, labels=labels)

    async def _connect(self, container: Container, slot: Slot, nonce: str, *, running: bool = False) -> Sandbox:
        assert self.group is not None
        channel = Channel(self._deployment.token(nonce), self._options.orphan_ttl)
        await self.group.start(self._serve_channel, channel, container)
        sandbox = Sandbox(
            profile=slot.profile,
            container=container,
            channel=channel,
            output_chars=self._options.output_chars,
            spool=self._options.spool,
            max_processes=self._options.max_processes,
        )
        if running:
            await sandbox.adopt(self._options.shell)
            return sandbox
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

    # --- taking up -----------------------------------------------------------------------------------------------

    async def adopt(self, slot: Slot) -> Sandbox | None:
        """Connect to the sandbox that an earlier server left; None where it is gone, or not what it is said to be."""
        inherited = slot.inherited
        assert inherited is not None
        container: Container | None = None
        try:
            container = await self._engine.find(inherited.container, slot.profile)
            if container is None:
                return None
            container = replace(container, is_owner=inherited.is_owner)
            sandbox = await self._connect(container, slot, inherited.nonce, running=True)
        except TaskcellError as error:
            log.warning("a sandbox of an earlier server was not taken up", name=inherited.name, reason=str(error))
            if container is not None and self.group is not None:
                # Its task gets another. A paused one would never end itself.
                self.group.start_soon(self.remove, container, slot.profile)
            return None
        slot.nonce = inherited.nonce
        self.number_on(slot.task, sandbox.processes.highest)
        return sandbox

    async def is_in_order(self, slot: Slot) -> bool:
        """Whether a warm sandbox may be given to a task: it answers, and its image is still the one of that name."""
        sandbox = slot.sandbox
        assert sandbox is not None
        image = ""

        async def look() -> None:
            nonlocal image
            with suppress(TaskcellError):
                image = await self._engine.image_id(slot.profile)

        with anyio.move_on_after(CHECK_TIMEOUT):
            async with anyio.create_task_group() as looking:
                looking.start_soon(look)
                with suppress(TaskcellError):
                    await sandbox.channel.ping()
            return sandbox.usable and image == sandbox.container.image_id
        return False

    async def rename(self, slot: Slot) -> None:
        """Give a container that was made for nobody the name of its task's."""
        await anyio.sleep(RENAME_DELAY)
        sandbox = slot.sandbox
        assert sandbox is not None
        try:
            sandbox.container = await self._engine.rename(sandbox.container, container_name(slot))
        except TaskcellError as error:
            log.info("a sandbox keeps its first name", name=sandbox.container.name, reason=str(error))

    def own(self, slot: Slot) -> None:
        """The slot's sandbox is its task's now, and with it the workspace."""
        sandbox = slot.sandbox
        assert sandbox is not None
        self._hold(self.record(slot.task), sandbox.container, slot.profile, sandbox.channel)

    @staticmethod
    def _hold(record: TaskRecord, container: Container, profile: AuthorizedProfile, channel: Channel | None) -> None:
        targets = frozenset(mount.target for mount in profile.profile.mounts)
        # Who changed the volume changed all: those that hold an older one hold nothing of the task's any more.
        if container.volume != record.workspace:
            record.holders.clear()
            record.workspace, record.is_owned = container.volume, True
        record.is_owned = record.is_owned and container.is_owner
        record.holders[container.id] = Holder(container.id, targets), channel

    # --- the end -------------------------------------------------------------------------------------------------

    async def remove(self, container: Container, profile: AuthorizedProfile) -> None:
        try:
            await self._engine.remove(container, keep=not profile.profile.remove)
        except TaskcellError as error:
            log.warning("a container could not be removed; it removes itself", name=container.name, reason=str(error))

    def let_go(self, task: TaskKey, container: Container) -> None:
        """The container is gone; it holds the task's files no more."""
        record = self._tasks.get(task)
        if record is not None:
            record.holders.pop(container.id, None)

    async def drop_workspace(self, record: TaskRecord) -> None:
        """Remove the volume of a task without containers, unless it is to stay or the engine has done so already."""
        if record.holders or not record.workspace or self._options.persistent:
            return
        name, record.workspace = record.workspace, ""
        if not record.is_owned:
            await self._remove_volume(name)

    async def _remove_volume(self, name: str) -> None:
        try:
            await self._engine.remove_workspace(name)
        except TaskcellError as error:
            log.warning("a workspace could not be removed", name=name, reason=str(error))


def container_name(slot: Slot) -> str:
    """Never used twice, and without a word of the task's."""
    owner = "warm" if slot.is_warm else slot.task.digest[:8]
    return f"taskcell-{owner}-{slot.profile.profile.name}-{secrets.token_hex(4)}"
