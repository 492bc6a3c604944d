"""Keeps the files of tasks in memory beyond their sandboxes: an archive of each on the server's disk.

A task's files are saved soon after its last call, and again when its last sandbox is closed for any reason but
`sandbox close`. So they are there for its next one, whatever ended the sandbox, the server or the engine.
"""

from __future__ import annotations

import posixpath
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import anyio
import anyio.abc
import anyio.to_thread
import structlog

from taskcell.config.settings import Settings
from taskcell.deployment.archives import ArchiveHead, most_bytes
from taskcell.deployment.base import Deployment
from taskcell.deployment.kept import KeptFiles
from taskcell.engine.base import Engine
from taskcell.errors import SandboxLost, TaskcellError
from taskcell.model import TaskKey
from taskcell.pool import own_folders
from taskcell.pool.filling import Fillings
from taskcell.pool.slot import Slot
from taskcell.pool.state import Slots
from taskcell.pool.workspaces import Workspaces
from taskcell.sandbox.sandbox import Sandbox
from taskcell.units import format_seconds

log = structlog.get_logger(__name__)

#: Seconds without a call after which a task's files are saved; and how many times as long as the last save took, so
#: that saving large files takes no more than a tenth of the time.
SAVE_AFTER = 2.0
SAVE_SHARE = 10.0
#: Tasks that are saved at once: many end their calls together, and others' calls come first.
SAVES_AT_ONCE = 2
#: Seconds between two saves of a task in which processes run that no call waits for.
SAVE_RUNNING = 60.0
#: Seconds that a save may take at the end of the server, before its sandboxes are closed.
EXIT_SAVE = 1.0
#: Seconds between two looks for archives that are too old or too many.
PRUNE_EVERY = 60.0


@dataclass(slots=True)
class Kept:
    """What is known of a task's archive.

    Arguments:
        copying: held while files are saved or put back.
        saved: when the last save that succeeded began (monotonic seconds).
        took: seconds that it took.
        leaving: slots that are closed once their files are saved, each with what is set then.
        unused: folder and variables that no terminal's sandbox has got yet.
    """

    copying: anyio.Lock = field(default_factory=anyio.Lock)
    saved: float = 0.0
    took: float = 0.0
    leaving: dict[Slot, anyio.Event] = field(default_factory=dict)
    unused: ArchiveHead | None = None


class Keeper:
    """Saves files, and puts them back. It does nothing where they are on disk anyway, or there is no place for them.

    Arguments:
        keeps: False: the server is for one call, and leaves nothing.
    """

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        workspaces: Workspaces,
        slots: Slots,
        deployment: Deployment,
        *,
        keeps: bool,
    ) -> None:
        self._engine = engine
        self._most = most_bytes(settings.workspace.size)
        self._workspaces = workspaces
        self._slots = slots
        self.files = KeptFiles(deployment.archives, settings.workspace.keep, settings.workspace.keep_size)
        self._keeps = keeps and not settings.keeps_files
        self._tasks: defaultdict[TaskKey, Kept] = defaultdict(Kept)
        self.fillings = Fillings()
        self._pruned = 0.0
        self._saving = 0

    @property
    def is_on(self) -> bool:
        """Files are kept beyond their sandboxes."""
        return self._keeps and self.files.is_on

    @property
    def _has_place(self) -> bool:
        return self._keeps and self.files.has_place

    # --- saving --------------------------------------------------------------------------------------------------

    def is_due(self, slot: Slot, now: float) -> bool:
        """Whether to save the task's files now: a call that may write has ended since the last save, and none runs."""
        if not self._can_save(slot) or slot.leases > slot.servers:
            return False
        kept = self._tasks[slot.task]
        if kept.copying.locked():
            return False
        if slot.changed > kept.saved:
            return now - slot.idle_since >= max(SAVE_AFTER, SAVE_SHARE * kept.took)
        return slot.is_busy and now - kept.saved >= max(SAVE_RUNNING, SAVE_SHARE * kept.took)

    def _can_save(self, slot: Slot) -> bool:
        if not self.is_on or slot.is_warm or not slot.holds_files or slot.sandbox is None:
            return False
        return slot.sandbox.container.volume == self._workspaces.record(slot.task).workspace

    async def save(self, slot: Slot, *, is_last: bool = False) -> None:
        """Save the task's files, if they may have changed. A failure is a line in the log.

        Arguments:
            is_last: the sandbox ends in any case, so that files are saved though something may still change them.
        """
        if not self._can_save(slot):
            return
        kept = self._tasks[slot.task]
        async with kept.copying:
            began = time.monotonic()
            if slot.changed <= kept.saved and not slot.is_busy:
                return

            def is_whole() -> bool:
                is_quiet = slot.changed <= began and slot.leases <= slot.servers
                return (is_last or is_quiet) and self._tasks.get(slot.task) is kept

            try:
                if await self._save(slot, is_whole):
                    kept.saved, kept.took = began, time.monotonic() - began
            except (TaskcellError, OSError) as error:
                log.warning("A task's files were not saved.", task=slot.task.digest, reason=str(error))

    async def _save(self, slot: Slot, is_whole: Callable[[], bool]) -> bool:
        """Save a task's files; returns whether they are kept. `is_whole`: nothing has changed them, or closed
        the task, meanwhile.
        """
        sandbox = slot.sandbox
        assert sandbox is not None
        about = await self.about(slot)
        draft, file = await anyio.to_thread.run_sync(self.files.draft, about)
        try:
            with file:
                await self._engine.save_files(sandbox.container, file, self._most)
            if not is_whole():
                return False
            await anyio.to_thread.run_sync(self._keep, draft, slot.task)
        finally:
            draft.unlink(missing_ok=True)
        return True

    def _keep(self, draft: Path, task: TaskKey) -> None:
        self.files.keep(draft, task)
        self.files.prune()  # not a minute later: a disk is full before that

    async def about(self, slot: Slot) -> ArchiveHead:
        """The task's folder and variables, as its terminal's sandbox has them."""
        task, now = slot.task, time.time()
        for sandbox in (one.sandbox for one in (slot, *self._slots) if one.task == task):
            if sandbox is not None and sandbox.profile.kind == "terminal":
                with suppress(SandboxLost):
                    await sandbox.settle()
                terminal = sandbox.spawner.terminal
                folder = "" if terminal.cwd is None else posixpath.relpath(terminal.cwd, sandbox.container.workspace)
                # A copy that a command has made of a secret does not come to lie on the disk.
                holds = sandbox.masks.holds
                env = terminal.env and {name: value for name, value in terminal.env.items() if not holds(value)}
                return ArchiveHead(task.principal, task.task, now, folder, env)
        kept = self._tasks.get(task)
        empty = ArchiveHead(task.principal, task.task, now)
        return empty if kept is None or kept.unused is None else replace(kept.unused, saved=now)

    # --- the end of a sandbox ------------------------------------------------------------------------------------

    def expect(self, slot: Slot) -> None:
        """The slot is about to be closed: its task's next sandbox waits until its files are saved."""
        if self._can_save(slot):
            self._tasks[slot.task].leaving[slot] = anyio.Event()

    async def save_last(self, slot: Slot) -> None:
        """Save the task's files before the slot is closed."""
        kept = self._tasks.get(slot.task)
        try:
            await self.save(slot, is_last=True)
            if kept is not None and slot.profile.kind == "terminal" and self._can_save(slot):
                kept.unused = await self.about(slot)
        finally:
            if kept is not None and (event := kept.leaving.pop(slot, None)) is not None:
                event.set()

    async def save_all(self) -> None:
        """Save what was not saved yet, at the end of the server; shielded, and bounded by EXIT_SAVE."""
        with anyio.move_on_after(EXIT_SAVE, shield=True):
            async with anyio.create_task_group() as saving:
                for slot in self._slots:
                    if self._can_save(slot):
                        saving.start_soon(partial(self.save, slot, is_last=True))

    def has_files(self, task: TaskKey) -> bool:
        """Whether files of the task are kept. Blocking."""
        return self._has_place and self.files.has(task)

    def forget(self, task: TaskKey, successor: Path | None = None) -> None:
        """The task is closed on purpose: what was kept of it goes. Blocking.

        Arguments:
            successor: an archive that `files` has begun, with what is kept of the task from now on. Raises OSError.
        """
        self.files.forget(task) if successor is None else self.files.keep(successor, task)
        self._tasks.pop(task, None)

    async def look(self, saving: anyio.abc.TaskGroup, now: float) -> None:
        """Save what is due, and once in PRUNE_EVERY delete what is kept for too long, or is too much."""
        for slot in self._slots:
            if self.is_due(slot, now) and self._saving < SAVES_AT_ONCE:
                self._saving += 1
                saving.start_soon(self._save_due, slot)
        if self.is_on and now - self._pruned >= PRUNE_EVERY:
            self._pruned = now
            await anyio.to_thread.run_sync(self.files.prune)

    async def _save_due(self, slot: Slot) -> None:
        try:
            await self.save(slot)
        finally:
            self._saving -= 1

    # --- putting back --------------------------------------------------------------------------------------------

    async def restore(self, slot: Slot, sandbox: Sandbox) -> str:
        """Put a task's files into its new sandbox, if its workspace is new; give a terminal its folder and variables.

        Returns what to say of the files; empty if there was nothing to put back.

        Raises:
            EngineError: they cannot be put back. They stay kept.
        """
        if slot.is_warm or not self._keeps:
            return ""
        kept, said = self._tasks[slot.task], ""
        for event in list(kept.leaving.values()):
            await event.wait()
        if sandbox.container.is_fresh:
            async with kept.copying:
                said = await self._fill(slot, sandbox, kept)
        about, terminal = kept.unused, sandbox.spawner.terminal
        if about is not None and slot.profile.kind == "terminal" and terminal.cwd is None and terminal.env is None:
            workspace = sandbox.container.workspace
            terminal.cwd = posixpath.normpath(posixpath.join(workspace, about.folder)) if about.folder else None
            terminal.env = None if about.env is None else dict(about.env)
            kept.unused = None
        return said

    async def _fill(self, slot: Slot, sandbox: Sandbox, kept: Kept) -> str:
        filling = self.fillings.get(slot.task)
        if filling is None or filling.is_done:
            return await self._put_back(slot, sandbox, kept) if self._has_place else ""
        filling.notes = await filling.fill(sandbox)
        filling.is_done = True
        kept.unused = filling.about
        return ""

    async def _put_back(self, slot: Slot, sandbox: Sandbox, kept: Kept) -> str:
        found = await anyio.to_thread.run_sync(self.files.take, slot.task)
        if found is None:
            return ""
        about, file = found
        with file:
            holds_any = await own_folders.put_all(self._engine, sandbox, file, about.own)
        kept.unused = replace(about, own={})
        if not self.is_on:  # it was a snapshot's, and nothing is kept of the task from now on
            await anyio.to_thread.run_sync(self.files.forget, slot.task)
        if not holds_any:
            return "its folder and variables are the same" if about.folder or about.env else ""
        before = slot.replaces
        if before is not None and kept.saved and before.changed > kept.saved:
            lost = format_seconds(round(before.changed - kept.saved, 1))
            return f"its files are as they were {lost} s before its last command ended, when they were saved"
        return "its files, folder and variables are the same"
