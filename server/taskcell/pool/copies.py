"""Copies of tasks' files: snapshots under names, what is restored from them, and forks.

Everything here happens whole or not at all. A snapshot and what is to be restored are written beside their places and
moved there; a fork's files are copied into a sandbox before it is its task's, and a fork that fails has no sandbox.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO, TypeVar

import anyio
import anyio.to_thread
import structlog

from taskcell.config.settings import Settings
from taskcell.deployment.archives import ArchiveHead, most_bytes, note_sizes, with_folders
from taskcell.deployment.snapshots import Snapshots
from taskcell.engine.base import Engine
from taskcell.errors import BadArgument, ErrorCode, SandboxLost, TaskcellError
from taskcell.model import TaskKey
from taskcell.policy.policy import AuthorizedProfile
from taskcell.pool import own_folders
from taskcell.pool.filling import Filling
from taskcell.pool.pool import Pool
from taskcell.pool.reserved import reserve
from taskcell.pool.sources import Sources
from taskcell.sandbox.sandbox import Sandbox
from taskcell.text import shown

log = structlog.get_logger(__name__)

T = TypeVar("T")
PassOn = Callable[[TaskKey, TaskKey], AbstractAsyncContextManager[None]]

#: Names of snapshots in an error at most; a model does nothing with more.
MAX_SHOWN = 20
_NO_PLACE = (
    "This server keeps nothing beyond its end, and so no snapshot: the person who runs the server must give it a "
    "folder for its state that it can write (`taskcell doctor` names it), and another engine than 'local'."
)


class Copies:
    """Makes them, for the tool `sandbox`.

    Each method takes the profile of the task's terminal.

    Arguments:
        pass_on: while the result is entered, the second task is to have the first one's environment.
    """

    def __init__(self, pool: Pool, engine: Engine, settings: Settings, pass_on: PassOn) -> None:
        self._pool = pool
        self._engine = engine
        self._pass_on = pass_on
        self._sources = Sources(pool, engine)
        workspace = settings.workspace
        self._files = Snapshots(pool.deployment.archives, workspace.snapshots, workspace.snapshots_size)
        self._most, self._most_own = most_bytes(workspace.size), workspace.snapshots_size

    # --- snapshots -----------------------------------------------------------------------------------------------

    async def snapshot(self, task: TaskKey, profile: AuthorizedProfile, name: str) -> list[str]:
        """Keep the task's files under a name, in the place of an older snapshot of that name; returns what to say.

        Raises:
            BadArgument: there is no such task.
            NoRoom: the principal has too many snapshots, or too large ones.
            TaskcellError: it cannot be made.
        """
        await self._check(task, profile)
        self._check_place()
        return await self._whole(partial(self._snapshot, task, profile, name))

    async def _snapshot(self, task: TaskKey, profile: AuthorizedProfile, name: str) -> list[str]:
        await anyio.to_thread.run_sync(self._files.check_room, task.principal, name)
        async with self._sources.held(task, profile) as (slot, sandbox):
            about = replace(await self._pool.keeper.about(slot), name=name)
            head = with_folders(about, profile.own)
            draft, file = await anyio.to_thread.run_sync(self._files.draft, head)
            try:
                async with self._sources.still(task) as notes:
                    with file:
                        sizes = await own_folders.save(self._engine, sandbox, file, self._most_own)
                        await self._engine.save_files(sandbox.container, file, self._most)
                        await anyio.to_thread.run_sync(note_sizes, file, replace(head, own=sizes))
                await anyio.to_thread.run_sync(self._files.keep, draft, head)
            finally:
                draft.unlink(missing_ok=True)
        return [f"The task's files are kept as the snapshot {shown(name)}.", *notes]

    async def restore(self, task: TaskKey, profile: AuthorizedProfile, name: str) -> list[str]:
        """Put a snapshot's files in the place of all of the task's, which may be a new one; returns what to say.

        What runs in the task is ended.

        Raises:
            BadArgument: the principal has no such snapshot.
            TaskcellError: it cannot be done. Before the task's sandboxes are closed, that changes nothing; afterwards
                its next call tries again.
        """
        own_folders.check(profile)
        await self._pool.of_task(task)  # before that, no server has joined its deployment
        self._check_place()
        return await self._whole(partial(self._restore, task, profile, name))

    async def _restore(self, task: TaskKey, profile: AuthorizedProfile, name: str) -> list[str]:
        found = await anyio.to_thread.run_sync(self._files.open, task.principal, name)
        if found is None:
            raise BadArgument(await self._unknown(task.principal, name), code=ErrorCode.NOT_FOUND)
        head, file = found
        own_folders.check(profile, head.own)
        slots = await self._pool.of_task(task)
        running = sum(len(slot.sandbox.channel.living) for slot in slots if slot.sandbox is not None)
        draft = await anyio.to_thread.run_sync(self._copy_archive, task, head, file)
        try:
            await self._pool.close_task(task, draft)
        finally:
            draft.unlink(missing_ok=True)
        async with self._pool.lease(task, profile) as (sandbox, _):
            reserve(self._pool, task, sandbox)
        ended = f" {running} process{'' if running == 1 else 'es'} that ran in it ended." if running else ""
        return [f"The task has the files, folder and variables of the snapshot {shown(name)}.{ended}"]

    def _copy_archive(self, task: TaskKey, head: ArchiveHead, file: BinaryIO) -> Path:
        about = replace(head, principal=task.principal, task=task.task, saved=time.time(), name="")
        draft, copy = self._pool.keeper.files.draft(about)
        try:
            with file, copy:
                shutil.copyfileobj(file, copy, 1 << 20)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        return draft

    async def _unknown(self, principal: str, name: str) -> str:
        names = [one.head.name for one in await anyio.to_thread.run_sync(self._files.of, principal)]
        there = ", ".join(map(shown, names[:MAX_SHOWN])) + (" and others" if len(names) > MAX_SHOWN else "")
        return f"There is no snapshot {shown(name)}. " + (
            f"There are: {there}." if names else "None has been made yet."
        )

    # --- forks ---------------------------------------------------------------------------------------------------

    async def fork(self, task: TaskKey, profile: AuthorizedProfile, to: TaskKey) -> list[str]:
        """Make a task with the same files, folder and variables as another one has; returns what to say.

        Raises:
            BadArgument: there is no such task, or the new one exists already.
            TaskcellError: it cannot be made; there is nothing of it then.
        """
        await self._check(task, profile)
        return await self._whole(partial(self._fork, task, profile, to))

    async def _fork(self, task: TaskKey, profile: AuthorizedProfile, to: TaskKey) -> list[str]:
        await self._check_new(to)
        async with self._sources.held(task, profile) as (slot, sandbox):
            filling = Filling(await self._pool.keeper.about(slot), partial(self._copy, task, sandbox))
            if to in self._pool.keeper.fillings:
                raise _exists(to)
            with self._pool.keeper.fillings.expecting(to, filling):
                async with self._pass_on(task, to), self._pool.lease(to, profile) as (made, _):
                    if not filling.is_done:
                        raise _exists(to)
                    reserve(self._pool, to, made)
        return [f"The task {shown(to.task)} has the same files, folder and variables.", *filling.notes]

    async def _copy(self, task: TaskKey, source: Sandbox, target: Sandbox) -> list[str]:
        if source.profile.own:
            return await self._sources.copy_with_folders(task, source, target, self._most_own)
        return await self._sources.copy(task, source, target.container)

    async def _check_new(self, task: TaskKey) -> None:
        """Raises BadArgument: the task exists; SandboxLost."""
        # It is to be where its files are, whoever would lead for it.
        found = await self._pool.holder(task, is_sent=True)
        if found.door is not None or await self._pool.has_begun(task):
            raise _exists(task)

    # --- for all -------------------------------------------------------------------------------------------------

    async def _check(self, task: TaskKey, profile: AuthorizedProfile) -> None:
        """Raises BadArgument: there is nothing to copy, or some of it cannot be."""
        own_folders.check(profile)
        if not await self._pool.has_begun(task):
            reason = f"The task {shown(task.task)} has no files: nothing has run in it yet."
            raise BadArgument(reason, code=ErrorCode.NOT_FOUND)

    def _check_place(self) -> None:
        if not self._files.is_on:
            raise TaskcellError(_NO_PLACE)

    async def _whole(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do something to its end, though the caller may give up. Each wait in it is bounded. Raises TaskcellError."""
        results: list[T] = []
        errors: list[TaskcellError] = []
        ended = anyio.Event()

        async def run() -> None:
            try:
                results.append(await work())
            except TaskcellError as error:
                errors.append(error)
            except OSError as error:
                errors.append(TaskcellError(f"The server cannot write the task's files to its disk: {error.strerror}."))
            except Exception as error:  # it must not end the pool
                log.exception("a copy of a task's files failed")
                errors.append(SandboxLost(f"The files could not be copied: {type(error).__name__}."))
            finally:
                if not results and not errors:
                    errors.append(SandboxLost("The server is closing: the files were not copied."))
                ended.set()

        self._pool.group.start_soon(run)
        await ended.wait()
        if errors:
            raise errors[0]
        return results[0]


def _exists(task: TaskKey) -> BadArgument:
    return BadArgument(
        f"The task {shown(task.task)} exists already: choose another name for the fork, or close that task first."
    )
