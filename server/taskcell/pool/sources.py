"""Tasks whose files are being copied: each is held, stands still if something runs in it, and is copied in turns."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
import anyio.abc
import structlog

from taskcell.engine.base import COPIES_AT_ONCE, Container, Engine
from taskcell.errors import EngineError, SandboxLost, TaskcellError
from taskcell.model import TaskKey
from taskcell.policy.policy import AuthorizedProfile
from taskcell.pool import own_folders
from taskcell.pool.pool import Pool
from taskcell.pool.slot import Slot
from taskcell.sandbox.sandbox import Sandbox

log = structlog.get_logger(__name__)

#: Seconds that what runs in a task is paused at most: its supervisor answers no ping meanwhile, and a little later it
#: would count as away. A gigabyte is copied in one second within memory, and in ten to the server's disk.
FREEZE_MOST = 5.0
_TORN = "Something wrote to the files while they were copied; what it wrote may be there in part."


@dataclass(slots=True, eq=False)
class _Target:
    """A workspace that is to get a copy; `outcome` as the engine said it, None before; `notes` as of `still`."""

    container: Container
    outcome: str | TaskcellError | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Source:
    """A task whose files are being copied.

    Arguments:
        holders: leases of its terminal's sandbox that are for copies.
        turn: held while the task stands still.
        waiting: workspaces that are to get a copy.
    """

    holders: int = 0
    turn: anyio.Lock = field(default_factory=anyio.Lock)
    waiting: list[_Target] = field(default_factory=list)


class Sources:
    """By task, while something copies its files."""

    def __init__(self, pool: Pool, engine: Engine) -> None:
        self._pool = pool
        self._engine = engine
        self._sources: dict[TaskKey, _Source] = {}

    @asynccontextmanager
    async def held(self, task: TaskKey, profile: AuthorizedProfile) -> AsyncIterator[tuple[Slot, Sandbox]]:
        """The terminal's sandbox of a task, with its files: it is not closed while this is entered.

        Raises what `Pool.lease` raises.
        """
        source = self._sources.setdefault(task, _Source())
        source.holders += 1
        try:
            async with self._pool.lease(task, profile) as (sandbox, notes):
                slot = next((slot for slot in self._pool.slots if slot.sandbox is sandbox), None)
                if slot is None:
                    raise SandboxLost("The task was closed while its files were to be copied.")
                slot.notes += notes  # they are for the task's own next answer
                yield slot, sandbox
        finally:
            source.holders -= 1
            if not source.holders:
                del self._sources[task]

    @asynccontextmanager
    async def still(self, task: TaskKey) -> AsyncIterator[list[str]]:
        """Nothing that runs in the task goes on while this is entered, for FREEZE_MOST. The task must be held.

        Yields a list that has what to say about it once this is left.
        """
        notes: list[str] = []
        async with self._sources[task].turn:
            busy = self._busy(task)
            before = self._started(task, busy)
            done, thawed = anyio.Event(), anyio.Event()
            if busy:
                await self._pool.group.start(self._freeze, busy, done, thawed)
            try:
                yield notes
            finally:
                was_torn = thawed.is_set()
                done.set()
                if busy:
                    await thawed.wait()  # bounded by the engine's call
            if was_torn or self._started(task, busy) != before:
                notes.append(_TORN)

    def _busy(self, task: TaskKey) -> list[Slot]:
        return [slot for slot in self._pool.slots if slot.task == task and slot.holds_files and self._is_active(slot)]

    def _is_active(self, slot: Slot) -> bool:
        """Something runs in it, or is about to."""
        assert slot.sandbox is not None
        own = self._sources[slot.task].holders if slot.profile.kind == "terminal" else 0
        return slot.leases > own or bool(slot.sandbox.channel.living)

    def _started(self, task: TaskKey, paused: list[Slot]) -> dict[Slot, int]:
        """How many processes were started in each of the task's sandboxes that are not paused."""
        others = [slot for slot in self._pool.slots if slot.task == task and slot.holds_files and slot not in paused]
        return {slot: slot.sandbox.channel.highest for slot in others if slot.sandbox is not None}

    async def _freeze(
        self, slots: list[Slot], done: anyio.Event, thawed: anyio.Event, *, task_status: anyio.abc.TaskStatus[None]
    ) -> None:
        """Pause sandboxes until `done`, for FREEZE_MOST at most; one that cannot be paused goes on."""
        started = False
        try:
            async with self._engine.frozen([slot.sandbox.container for slot in slots if slot.sandbox is not None]):
                started = True
                task_status.started()
                with anyio.move_on_after(FREEZE_MOST):
                    await done.wait()
        except TaskcellError as error:
            log.warning("What runs in a task was not paused, or does not go on.", reason=str(error))
        finally:
            thawed.set()
            if not started:
                task_status.started()

    # --- within memory -------------------------------------------------------------------------------------------

    async def copy(self, task: TaskKey, source: Sandbox, target: Container) -> list[str]:
        """Fill a workspace with the task's files. Those that wait at once are filled in one go. Raises TaskcellError.

        Returns what to say about it.

        Arguments:
            source: a sandbox of the task, which must be held.
        """
        waiting, own = self._sources[task].waiting, _Target(target)
        waiting.append(own)
        while own.outcome is None:
            async with self.still(task) as notes:
                if own.outcome is None:
                    await self._fill(source, waiting, notes)
        if isinstance(own.outcome, TaskcellError):
            raise own.outcome
        _check_whole(own.outcome)
        return own.notes

    async def copy_with_folders(self, task: TaskKey, source: Sandbox, target: Sandbox, most: int) -> list[str]:
        """As `copy`, with the folders of the image that are the task's own, of the same moment.

        Arguments:
            most: bytes of the archives of these folders.
        """
        folder = self._pool.deployment.archives.folder  # on disk, where a machine's /tmp may be in its memory
        with tempfile.TemporaryFile(dir=folder if folder is not None and folder.is_dir() else None) as file:
            async with self.still(task) as notes:
                containers = [target.container]
                (why,) = await self._engine.copy_files(source.container, containers, source.profile.runtime)
                _check_whole(why)
                sizes = await own_folders.save(self._engine, source, file, most)
            file.seek(0)
            await own_folders.put(self._engine, target, file, sizes)
        return notes

    async def _fill(self, source: Sandbox, waiting: list[_Target], notes: list[str]) -> None:
        batch = waiting[:COPIES_AT_ONCE]
        del waiting[:COPIES_AT_ONCE]
        for one in batch:
            one.notes = notes
            one.outcome = SandboxLost("The server is closing: the fork was not made.")
        try:
            containers = [one.container for one in batch]
            found = await self._engine.copy_files(source.container, containers, source.profile.runtime)
        except TaskcellError as error:
            for one in batch:
                one.outcome = error
        else:
            for one, outcome in zip(batch, found, strict=True):
                one.outcome = outcome


def _check_whole(why: str) -> None:
    """Raise EngineError if there is a reason why a copy is not whole."""
    if why:
        raise EngineError(f"The task's files could not be copied: {why}. The fork was not made.")
