"""A deployment whose servers are on one machine: what they know about each other is in a folder, and locks in it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from pathlib import Path

import anyio
import anyio.to_thread

from taskcell.deployment.base import Claimed, Peer
from taskcell.deployment.claim_files import ClaimFiles
from taskcell.deployment.opened import Opening
from taskcell.deployment.records import NoteRecord, SandboxRecord, ServerRecord
from taskcell.deployment.state_folder import StateFolder
from taskcell.model import LOCAL_PRINCIPAL, TaskKey

#: The next server of one machine is its client's, which starts it at once. The rest of `orphan_ttl` is for one that
#: runs already, to notice and to connect to what was left.
LEFT_ALONE = 0.5


class FolderDeployment:
    """Reads and writes the folder in worker threads. The lock of this server holds until its process ends."""

    left_alone = LEFT_ALONE
    marks_owners = False
    is_current = True
    tls = None

    def __init__(self, state: StateFolder) -> None:
        self.state = state
        self.claims: FolderClaims | None = None
        self.opened: dict[TaskKey, Opening] = {}

    @property
    def archives(self) -> StateFolder:
        return self.state

    @property
    def door(self) -> Path | None:
        return self.state.door

    @property
    def key(self) -> bytes:
        return self.state.key

    @property
    def instance(self) -> str:
        return self.state.instance

    async def join(self, instance: str) -> None:
        await anyio.to_thread.run_sync(self.state.join, instance)
        self.claims = None if self.door is None else FolderClaims(ClaimFiles(self.state, self.door))

    @property
    def is_shared(self) -> bool:
        return self.state.is_shared

    async def run(self) -> None:
        """The kernel says of a lock whether its process lives."""

    async def write(self, sandboxes: Sequence[SandboxRecord], notes: Sequence[NoteRecord] = ()) -> None:
        if self.is_shared:
            await anyio.to_thread.run_sync(self.state.write, sandboxes, notes)

    has_heirs = False

    def lives(self, instance: str) -> bool:
        return True  # a door says so itself

    async def hand_over(self) -> None:
        """Nobody is there before this server has ended."""

    async def begin_to_leave(self) -> None:
        """Another server's task is never given to this one."""

    async def leave(self, *, keep: bool) -> None:
        self.state.leave(keep=keep)  # two system calls, and nothing of this server runs any more
        self.claims = None

    def peers(self) -> Sequence[Peer]:
        return ()

    async def peer(self, instance: str) -> Peer | None:
        return None

    async def servers(self) -> Sequence[ServerRecord]:
        return await anyio.to_thread.run_sync(self.state.servers)

    async def dead(self) -> Collection[str]:
        return [server.instance for server in await self.servers() if not server.alive] if self.is_shared else []

    async def bequeathed(self, chosen: Collection[str] | None = None) -> AsyncIterator[ServerRecord]:
        found = self.state.bequeathed(chosen)
        try:
            while (left := await anyio.to_thread.run_sync(next, found, None)) is not None:
                yield left
        finally:
            found.close()

    async def elsewhere(self) -> frozenset[TaskKey]:
        others = [server for server in await self.servers() if server.alive and server.instance != self.instance]
        return frozenset(record.key for server in others for record in server.sandboxes if record.adopted)


class FolderClaims:
    """Claims in files of the folder, for the person's own tasks alone: a local door serves nobody else."""

    def __init__(self, files: ClaimFiles) -> None:
        self._files = files
        self.own = files.own

    def covers(self, task: TaskKey) -> bool:
        return task.principal == LOCAL_PRINCIPAL

    async def claim(self, task: TaskKey, *, is_sent: bool = False) -> Claimed:
        return await anyio.to_thread.run_sync(self._files.claim, task)

    async def take(self, tasks: Collection[TaskKey]) -> None:
        await anyio.to_thread.run_sync(self._files.take, tasks)

    async def release(self, tasks: Collection[TaskKey]) -> None:
        await anyio.to_thread.run_sync(self._files.release, tasks)

    async def sweep(self) -> None:
        await anyio.to_thread.run_sync(self._files.sweep)
