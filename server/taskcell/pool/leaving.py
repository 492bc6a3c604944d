"""How a server's tasks become those of the deployment's other servers before it has ended, so that no call is lost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import anyio

from taskcell.deployment.base import Claimed
from taskcell.errors import SandboxLost
from taskcell.model import TaskKey
from taskcell.pool.executor import Executor

if TYPE_CHECKING:
    from taskcell.pool.pool import Pool

#: Seconds that a call waits until its task can be another server's: less than the end of a server may take.
HANDING_PATIENCE = 8.0
#: Seconds for tasks that are just being closed, and between two looks.
SAVING_PATIENCE, SAVING_TURN = 2.0, 0.05
CLOSES = "The server is closing: nothing new is started, and every sandbox is closed."


class Leaving:
    """The end of a pool whose tasks other servers get at once.

    Arguments:
        write: writes down, for other servers, what the pool has.
    """

    def __init__(self, pool: Pool, executor: Executor, write: Callable[[], Awaitable[None]]) -> None:
        self._pool = pool
        self._executor = executor
        self._write = write
        self._done = anyio.Event()
        self.has_begun = False

    @property
    def is_done(self) -> bool:
        return self._done.is_set()

    def begin(self) -> bool:
        """Get no further task: calls wait for `hand_over`. False where no other server would have this one's tasks."""
        self.has_begun = self._pool.hands_over and self._pool.deployment.has_heirs
        return self.has_begun

    def stop_making(self) -> None:
        """Have calls that wait for a sandbox go to another server."""
        self._executor.stop(moves=True)

    async def hand_over(self) -> None:
        """Leave everything to the other servers as it is, while this one lives on. Raises TaskcellError."""
        self.stop_making()
        with anyio.move_on_after(SAVING_PATIENCE):
            while self._executor.closing_tasks:  # their files are still to be saved, before another server looks
                await anyio.sleep(SAVING_TURN)
        await self._write()
        await self._pool.deployment.hand_over()
        self._done.set()

    async def heir_of(self, task: TaskKey) -> Claimed:
        """Who says which server has a task, once this one has given up all that it had. Raises TaskcellError."""
        with anyio.move_on_after(HANDING_PATIENCE):
            await self._done.wait()
        claims = self._pool.deployment.claims
        if claims is None or not self.is_done:
            raise SandboxLost(CLOSES)
        return await claims.claim(task)
