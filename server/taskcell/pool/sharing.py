"""Which tasks are this server's among those of its deployment: two servers that live never have the same one."""

from __future__ import annotations

import time
from collections.abc import Collection

import anyio
import structlog

from taskcell.deployment.base import Claimed, Claims, Deployment
from taskcell.errors import TaskcellError, TaskMoved
from taskcell.model import TaskKey
from taskcell.pool.executor import Executor
from taskcell.pool.heir import Heir
from taskcell.pool.state import Slots
from taskcell.pool.upkeep import Upkeep

log = structlog.get_logger(__name__)

#: Seconds that a task without a sandbox stays this server's after its last call, beside the wait for a place.
CLAIM_KEPT = 5.0


class Sharing:
    """Claims tasks at their first call, and gives them up when nothing of them is left.

    Arguments:
        acquire_timeout: seconds that a call may wait for a place.
    """

    def __init__(
        self,
        slots: Slots,
        deployment: Deployment,
        heir: Heir,
        upkeep: Upkeep,
        executor: Executor,
        *,
        acquire_timeout: float,
    ) -> None:
        self._slots = slots
        self._deployment = deployment
        self._heir = heir
        self._upkeep = upkeep
        self._executor = executor
        self._kept = acquire_timeout + CLAIM_KEPT
        self._used: dict[TaskKey, float] = {}
        self._has_swept = self._is_blind = False

    async def holder(self, task: TaskKey, *, is_sent: bool = False) -> Claimed:
        """The door of the living server that has a task, or says who has; none when it is this server's from now on.

        What a server left that has died is taken over first. Call it after the pool has begun.

        Arguments:
            is_sent: another server says that this one is to say who has the task.
        """
        claims = self._deployment.claims
        if claims is None or not claims.covers(task):
            return Claimed()
        self._used[task] = time.monotonic()
        if await self._has_surely(task, claims):
            return Claimed()
        was_own = task in claims.own
        try:
            with anyio.CancelScope(shield=True):  # a few files of the disk, or a few requests
                claim = await claims.claim(task, is_sent=is_sent or was_own)
        except OSError as error:
            log.warning("Other servers do not know that this one has a task.", reason=error.strerror)
            return Claimed()
        if claim.dead:
            await self._upkeep.undisturbed(lambda: self._heir.take_over(claim.dead))
        elif claim.door is None:
            await self._taken_over(task)
        if claim.door is not None and claim.is_certain and self._deployment.marks_owners:
            self._executor.let_go(task)
        return claim

    def _let_go(self, tasks: Collection[TaskKey]) -> None:
        """Other servers have these tasks. Where no container says so, each of both has one of its own."""
        for task in tasks if self._deployment.marks_owners else ():
            log.warning("Another server has taken a task of this one's over.", task=task.task)
            self._executor.let_go(task)

    async def check(self, task: TaskKey) -> None:
        """Raises TaskMoved: another server has taken the task since its call began here; nothing was run."""
        claims = self._deployment.claims
        if claims is None or not self._deployment.marks_owners:
            return
        if not await self._has_surely(task, claims) and (await self.holder(task, is_sent=True)).door is not None:
            raise TaskMoved

    async def _has_surely(self, task: TaskKey, claims: Claims) -> bool:
        """Whether this server has a task, with what a dead server left of it."""
        if task not in claims.own or self._is_doubtful(task):
            return False
        await self._taken_over(task)
        return True

    async def _taken_over(self, task: TaskKey) -> None:
        """Wait for what a dead server left of a task, if that is being taken over just now: its claim came before."""
        if self._deployment.marks_owners and all(slot.task != task for slot in self._slots):
            await self._upkeep.undisturbed(_nothing)

    def _is_doubtful(self, task: TaskKey) -> bool:
        """Whether another server may have taken a task of this one's, which was away for too long."""
        if not self._deployment.marks_owners:
            return False
        own = (slot.sandbox for slot in self._slots if slot.task == task and slot.sandbox is not None)
        return not self._deployment.is_current or any(not sandbox.channel.alive for sandbox in own)

    async def look_at_siblings(self) -> None:
        """Take over what servers left that have died. Claim that, and give up tasks of which nothing is left here."""
        try:
            await self._heir.look_again()
            if (claims := self._deployment.claims) is not None:
                await self._settle(claims)
        except TaskcellError as error:  # the next look is two seconds later
            if not self._is_blind:
                log.warning("It cannot be seen which other servers live.", reason=str(error))
            self._is_blind = True
        else:
            self._is_blind = False

    async def _settle(self, claims: Claims) -> None:
        """Claim what is here and unclaimed, and give up what is claimed and not here. Raises TaskcellError."""
        here = {slot.task for slot in self._slots if not slot.is_warm and claims.covers(slot.task)}
        since = time.monotonic() - self._kept
        self._used = {task: used for task, used in self._used.items() if used > since or task in here}
        if new := here - claims.own:
            await claims.take(new)
            self._let_go(new - claims.own)
        if not self._has_swept:
            self._has_swept = True
            await claims.sweep()
        # What is being closed is still to be saved, and another server must not look for it before that.
        gone = claims.own - here - self._used.keys() - self._executor.closing_tasks
        if gone or self._deployment.marks_owners:
            await claims.release(gone)


async def _nothing() -> None:
    """What is waited for has been done before."""
