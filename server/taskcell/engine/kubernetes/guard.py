"""Looks again and again whether what all sandboxes rely on is still there, and restores it.

The cluster's administrators and other programs may delete or change a NetworkPolicy, a ConfigMap or a pod's labels
while sandboxes run. What cannot be restored ends the sandboxes that rely on it.
"""

from __future__ import annotations

import random
from typing import Any

import anyio
import structlog

from taskcell.engine.kubernetes import pod, status
from taskcell.engine.kubernetes.network import NetworkOpen, Wall
from taskcell.engine.kubernetes.pods import Pods
from taskcell.errors import EngineError

log = structlog.get_logger(__name__)

#: Seconds between two looks: each is one request, and a hole in the wall is to be open for seconds and not minutes.
GUARD_EVERY = 10.0
#: Looks after which the supervisor's ConfigMap is looked at in the place of the policies: pods that run have it.
SUPERVISOR_EVERY = 6
#: Looks in a row at which a policy cannot be restored before its sandboxes are ended: the cluster may only be busy.
UNMENDED_LOOKS = 2


class Guard:
    """The guard of one server's pods."""

    def __init__(self, pods: Pods, wall: Wall, look_every: float = GUARD_EVERY) -> None:
        self._pods, self._wall = pods, wall
        self._look_every = look_every
        self._failed = 0
        #: Why pods were ended, by their volumes.
        self.ended: dict[str, str] = {}

    async def run(self) -> None:
        """Look until cancelled. An API server that does not answer is asked again at the next look."""
        turn = 0
        while True:
            await anyio.sleep(self._look_every * random.uniform(0.8, 1.2))  # noqa: S311 - servers do not ask in step
            turn += 1
            try:
                if turn % SUPERVISOR_EVERY:
                    await self._look()
                else:
                    await self._pods.keep_supervisors()
            except EngineError as error:
                log.warning("What keeps sandboxes apart cannot be looked at.", reason=str(error))

    async def _look(self) -> None:
        walled = [one for one in self._pods.watch.seen if status.runs(one) and status.is_walled(one)]
        if not walled:
            return
        try:
            await self._wall.restore()
        except NetworkOpen as error:
            self._failed += 1
            for one in walled if self._failed >= UNMENDED_LOOKS else ():
                await self._end(one, str(error))
            return
        self._failed = 0
        for one in walled:
            await self._pods.restore_label(one)
            try:
                self._wall.check_labels(status.labels_of(one))
            except NetworkOpen as error:
                await self._end(one, str(error))

    async def _end(self, found: dict[str, Any], why: str) -> None:
        volume = status.volume_of(found)
        if volume not in self.ended:
            log.error("A sandbox is ended, for nothing keeps it from a network any more.", pod=volume, reason=why)
        self.ended[volume] = why
        await self._pods.delete(found["metadata"]["name"], found["metadata"]["uid"], pod.POD_GRACE)
