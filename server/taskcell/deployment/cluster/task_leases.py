"""Claims of a cluster's servers: a Lease for each task in use, which holds the name of the server that has it."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from typing import Any

from taskcell.deployment.base import Claimed, Peer
from taskcell.deployment.cluster.members import Members
from taskcell.deployment.cluster.objects import CLAIM, INSTANCE, Objects, at_label, set_to, test
from taskcell.errors import EngineUnavailable, TaskcellError
from taskcell.model import TaskKey

#: Attempts at one claim; each fails only because another server has just changed it.
ATTEMPTS = 8
_HOLDER = "/spec/holderIdentity"


class TaskLeases:
    """The claims of one server. Its methods raise EngineUnavailable, EngineError where they ask."""

    def __init__(self, objects: Objects, members: Members) -> None:
        self._objects = objects
        self._members = members
        self._versions: dict[TaskKey, str] = {}
        self.own: set[TaskKey] = set()

    def covers(self, task: TaskKey) -> bool:
        return True

    async def claim(self, task: TaskKey, *, is_sent: bool = False) -> Claimed:
        lead = self._members.peer(self._members.lead(task))
        if lead is not None and not is_sent:
            return Claimed(lead, is_certain=False)
        for _ in range(ATTEMPTS):
            made = await self._objects.make("leases", self._body(task))
            found = made or await self._objects.found("leases", self._name(task))
            if found is None:
                continue  # it was given up in between
            holder = str(found["spec"]["holderIdentity"])
            if holder == self._members.instance:
                return self._is_own(task, found)
            peer = await self._living(holder)
            if peer is not None:
                self.own.discard(task)
                return Claimed(peer)
            taken = await self._take(task, holder)
            if taken is not None:
                return self._is_own(task, taken, holder)
        raise EngineUnavailable("Other servers change at every attempt which of them has the task. Call again.")

    def _is_own(self, task: TaskKey, found: dict[str, Any], dead: str = "") -> Claimed:
        self._versions[task] = str(found["metadata"]["resourceVersion"])
        self.own.add(task)
        return Claimed(dead=dead)

    async def _living(self, holder: str) -> Peer | None:
        """Where a server is reached that has a task, if it lives. One that has just come is looked for."""
        if (peer := self._members.peer(holder)) is None and holder not in self._members.dead():
            await self._members.look()
            peer = self._members.peer(holder)
        return peer

    async def _take(self, task: TaskKey, holder: str) -> dict[str, Any] | None:
        steps = [
            test(_HOLDER, holder),
            set_to(_HOLDER, self._members.instance),
            set_to(at_label(INSTANCE), self._members.instance),
        ]
        return await self._objects.change("leases", self._name(task), steps)

    async def seize(self, task: TaskKey, dead: str) -> bool:
        """Take a task of a dead server, or find that this one has it already; False where another one has it."""
        if task in self.own:
            return True
        taken = await self._take(task, dead)
        if taken is not None:
            self._is_own(task, taken)
        elif await self._objects.found("leases", self._name(task)) is None:
            return (await self.claim(task, is_sent=True)).door is None
        return taken is not None

    async def take(self, tasks: Collection[TaskKey]) -> None:
        for task in tasks:
            with suppress(TaskcellError):
                await self.claim(task, is_sent=True)

    async def release(self, tasks: Collection[TaskKey]) -> None:
        for task in tasks:
            self.own.discard(task)
            version = self._versions.pop(task, "")
            with suppress(TaskcellError):
                found = await self._objects.found("leases", self._name(task))
                if found is not None and found["metadata"]["resourceVersion"] == version:
                    await self._objects.delete("leases", found)

    async def check(self) -> Collection[TaskKey]:
        """See which tasks are still this server's, which was away; returns those that are not any more."""
        held = {one["metadata"]["name"] for one in await self._of(self._members.instance)}
        lost = [task for task in self.own if self._name(task) not in held]
        self.own.difference_update(lost)
        return lost

    async def sweep(self) -> None:
        """What dead servers left goes with their Leases."""

    async def forget(self, instance: str) -> None:
        """Remove the claims of a dead server: of tasks that have no pod."""
        for found in await self._of(instance):
            await self._objects.delete("leases", found)

    async def _of(self, instance: str) -> Collection[dict[str, Any]]:
        return await self._objects.listed("leases", role=CLAIM, instance=instance)

    def _body(self, task: TaskKey) -> dict[str, Any]:
        instance = self._members.instance
        meta = {"name": self._name(task), "labels": self._objects.labels(role=CLAIM, instance=instance)}
        spec = {"holderIdentity": instance}
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec}

    def _name(self, task: TaskKey) -> str:
        return self._objects.name(CLAIM, task.digest)
