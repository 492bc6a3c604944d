"""The files of each task: the volume or folder that they are in, and the containers that keep them alive."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import anyio
import anyio.to_thread
import structlog

from taskcell.config.settings import Settings
from taskcell.deployment.base import Deployment
from taskcell.engine.base import Container, Engine, Holder, Workspace
from taskcell.errors import TaskcellError
from taskcell.model import TaskKey
from taskcell.policy.policy import AuthorizedProfile
from taskcell.pool.slot import Slot
from taskcell.supervisor.channel import Channel

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class TaskRecord:
    """What the sandboxes of one task share.

    Arguments:
        workspace: name of the volume with its files; empty when there is none yet.
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


class Profiles(Protocol):
    """The profiles of the server's tools and environments, as they are now."""

    def authorized(self, name: str, task: TaskKey) -> AuthorizedProfile | None:
        """The profile of that name and task; None when there is none, or it is denied."""

    def siblings(self) -> Sequence[AuthorizedProfile]:
        """Those of the server's tools that the policy allows."""

    def users(self) -> Collection[str]:
        """As whom the commands run that may write to a task's files."""


class Workspaces:
    """Remembers a record for each task that this server has seen, until the task is closed.

    Arguments:
        profiles: those of the server, as they are now.
    """

    def __init__(self, engine: Engine, settings: Settings, deployment: Deployment, profiles: Profiles) -> None:
        self._engine = engine
        self._settings = settings
        self._deployment = deployment
        self.siblings = profiles.siblings
        self._users = profiles.users
        self._tasks: dict[TaskKey, TaskRecord] = {}

    def record(self, task: TaskKey) -> TaskRecord:
        """The task's record, made now if there is none yet."""
        record = self._tasks.get(task)
        if record is None:
            record = self._tasks[task] = TaskRecord(task)
        return record

    def count_commands(self, task: TaskKey, commands: int) -> None:
        """The task has had so many commands already: no later one gets the name of one of them."""
        record = self.record(task)
        record.processes = max(record.processes, commands)

    def forget(self, task: TaskKey) -> TaskRecord | None:
        """From now on the task is a new one, with a workspace of its own. Returns its old record."""
        return self._tasks.pop(task, None)

    def records(self) -> list[TaskRecord]:
        """The records of all tasks."""
        return list(self._tasks.values())

    # --- before a container starts -------------------------------------------------------------------------------

    def claim_founding(self, slot: Slot) -> None:
        """The first slot of a task that is made brings its workspace; it may be one that was begun for no task."""
        record = self.record(slot.task)
        if record.founder is None or record.founder.settled.is_set():
            record.founder = slot

    def are_shared_by(self, profile: AuthorizedProfile) -> bool:
        """Whether other users than a profile's own write to a task's files; never a person's own folder's."""
        return profile.folder is None and len({profile.user, *self._users()}) > 1

    async def choose(self, record: TaskRecord, slot: Slot) -> Workspace:
        """Where the slot's container is to find the task's files; waits while another slot's container makes them."""
        workspace, size = self._settings.workspace, self._settings.workspace.size
        if slot.profile.folder is not None:
            return Workspace(size, slot.profile.folder.path, persistent=True)
        # Two containers that each make a workspace would give one task two: the others wait for the founder's.
        while not record.is_held and record.founder is not None and record.founder is not slot:
            if record.founder.settled.is_set():
                record.founder = slot
            else:
                await record.founder.settled.wait()
        if not workspace.persistent:
            return Workspace(size, record.workspace, tuple(holder for holder, _ in record.holders.values()))
        root, digest = self._settings.workspace_root, record.key.digest
        folder = str(root / digest) if root is not None else ""
        name = "" if folder else f"taskcell-data-{self._settings.deployment_id}-{digest}"
        # Each time: `taskcell rm --purge` may have deleted it, and the note, while this server runs.
        await anyio.to_thread.run_sync(self._deployment.state.note_workspace, record.key, folder or name)
        return Workspace(size, name, persistent=True, folder=folder)

    # --- while containers run ------------------------------------------------------------------------------------

    @staticmethod
    def hold(record: TaskRecord, container: Container, profile: AuthorizedProfile, channel: Channel | None) -> None:
        """A container of the task runs, and has the task's files mounted."""
        targets = frozenset(mount.target for mount in profile.mounts)
        # A container with another volume has the task's only files: those that hold an older volume hold none of them.
        if container.volume != record.workspace:
            record.holders.clear()
            record.workspace, record.is_owned = container.volume, True
        record.is_owned = record.is_owned and container.is_owner
        record.holders[container.id] = Holder(container.id, targets, profile.is_reader), channel

    def own(self, slot: Slot) -> None:
        """The slot's sandbox belongs to its task now, and its workspace with it."""
        sandbox = slot.sandbox
        assert sandbox is not None
        self.hold(self.record(slot.task), sandbox.container, slot.profile, sandbox.channel)

    # --- when containers are gone --------------------------------------------------------------------------------

    def let_go(self, task: TaskKey, container: Container) -> None:
        """The container is gone; it holds the task's files no longer."""
        record = self._tasks.get(task)
        if record is not None:
            record.holders.pop(container.id, None)

    async def drop(self, record: TaskRecord | None) -> None:
        """Remove the volume of a task without containers, unless it is to stay or the engine has done so already."""
        if record is None or record.holders or not record.workspace or self._settings.keeps_files:
            return
        name, record.workspace = record.workspace, ""
        if not record.is_owned:
            await self.remove(name)

    async def remove(self, name: str) -> None:
        """Remove a volume; a failure is a line in the log."""
        try:
            await self._engine.remove_workspace(name)
        except TaskcellError as error:
            log.warning("a workspace could not be removed", name=name, reason=str(error))
