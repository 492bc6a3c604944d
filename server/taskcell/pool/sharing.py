"""Which tasks are this server's among those of its deployment: two servers that live never have the same one."""

from __future__ import annotations

import time
from pathlib import Path

import anyio
import anyio.to_thread
import structlog

from taskcell.deployment.claims import Claims
from taskcell.deployment.records import Deployment
from taskcell.model import LOCAL_PRINCIPAL, TaskKey
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
        self, slots: Slots, deployment: Deployment, heir: Heir, upkeep: Upkeep, *, acquire_timeout: float
    ) -> None:
        self._slots = slots
        self._deployment = deployment
        self._heir = heir
        self._upkeep = upkeep
        self._kept = acquire_timeout + CLAIM_KEPT
        self._claims: Claims | None = None
        self._used: dict[TaskKey, float] = {}
        self._has_swept = False

    async def holder(self, task: TaskKey) -> Path | None:
        """The door of the living server that has a task; None when it is this server's from now on.

        Only the person's own tasks are shared: a local door serves nobody else. What a server left that has died is
        taken over first. Call it after the pool has begun.
        """
        if task.principal != LOCAL_PRINCIPAL:
            return None
        self._used[task] = time.monotonic()
        claims = self._own_claims()
        if claims is None or task in claims.own:
            return None
        try:
            with anyio.CancelScope(shield=True):  # a few files of the disk
                claim = await anyio.to_thread.run_sync(claims.claim, task)
        except OSError as error:
            log.warning("Other servers do not know that this one has a task.", reason=error.strerror)
            return None
        if claim.dead:
            await self._upkeep.undisturbed(lambda: self._heir.take_over(claim.dead))
        return claim.door

    async def look_at_siblings(self) -> None:
        """Take over what servers left that have died. Claim that, and give up tasks of which nothing is left here."""
        await self._heir.look_again()
        claims = self._own_claims()
        if claims is None:
            return
        here = {slot.task for slot in self._slots if slot.task.principal == LOCAL_PRINCIPAL}
        since = time.monotonic() - self._kept
        self._used = {task: used for task, used in self._used.items() if used > since or task in here}
        if new := here - claims.own:
            await anyio.to_thread.run_sync(claims.take, new)
        if not self._has_swept:
            self._has_swept = True
            await anyio.to_thread.run_sync(claims.sweep)
        if gone := claims.own - here - self._used.keys():
            await anyio.to_thread.run_sync(claims.release, gone)

    def _own_claims(self) -> Claims | None:
        door = self._deployment.door
        if self._claims is None and door is not None:
            self._claims = Claims(self._deployment, door)
        return self._claims
