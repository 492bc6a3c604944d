"""How a server's tasks become those of the deployment's other servers before it has ended, so that no call is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from taskcell.deployment.base import Claimed
from taskcell.errors import SandboxLost
from taskcell.model import TaskKey
from taskcell.pool.parts import Parts

if TYPE_CHECKING:
    from taskcell.pool.pool import Pool

#: Seconds that a call waits until its task can be another server's: less than the end of a server may take.
HANDING_PATIENCE = 8.0
#: Seconds for tasks that are just being closed, and between two looks.
SAVING_PATIENCE, SAVING_TURN = 2.0, 0.05
CLOSES = "The server is closing: nothing new is started, and every sandbox is closed."


class Leaving:
    """The end of a pool, and of one whose tasks other servers get at once."""

    def __init__(self, pool: Pool, parts: Parts) -> None:
        self._pool = pool
        self._executor, self._closing = parts.executor, parts.closing
        self._upkeep, self._keeper = parts.upkeep, parts.keeper
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
            while self._executor.closing_tasks:  # noqa: ASYNC110 - their files are still to be saved, before another server looks
                await anyio.sleep(SAVING_TURN)
        await self._upkeep.write_last()
        await self._pool.deployment.hand_over()
        self._done.set()

    async def close(self) -> None:
        """Close every sandbox, or leave those to the deployment's next server that it can use."""
        await self._upkeep.rest()
        await self._keeper.save_all()
        if self._pool.hands_over:
            await self._closing.close_all_but_kept()
            await self._upkeep.write_last()
        else:
            await self._closing.close_everything()

    async def heir_of(self, task: TaskKey) -> Claimed:
        """Who says which server has a task, once this one has given up all that it had. Raises TaskcellError."""
        with anyio.move_on_after(HANDING_PATIENCE):
            await self._done.wait()
        claims = self._pool.deployment.claims
        if claims is None or not self.is_done:
            raise SandboxLost(CLOSES)
        return await claims.claim(task)
