"""Claims of a cluster's servers: a Lease for each task in use, which holds the name of the server that has it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

import anyio

from taskcell.careful_clock import careful_time
from taskcell.deployment.base import Claimed, Peer
from taskcell.deployment.cluster.members import Members
from taskcell.deployment.cluster.objects import CLAIM, INSTANCE, Objects, at_annotation, at_label, set_to, test
from taskcell.deployment.cluster.seen_lease import micro_time
from taskcell.deployment.opened import KEPT_FOR, OPENING_FAULTS, Opening, document_of, opening_of
from taskcell.engine.kubernetes.pod import LABEL_PREFIX
from taskcell.errors import EngineUnavailable, TaskcellError
from taskcell.model import TaskKey

#: Attempts at one claim; each fails only because another server has just changed it.
ATTEMPTS = 8
#: The annotation that says what a task was opened with; empty where it was not.
OPENING = LABEL_PREFIX + "opening"
_HOLDER, _LIFE, _TIME = "/spec/holderIdentity", "/spec/leaseTransitions", "/spec/renewTime"


class TaskLeases:
    """The claims of one server. Its methods raise EngineUnavailable, EngineError where they ask.

    Arguments:
        opened: what this server's tasks were opened with: it is in their Leases, and so goes with them.
    """

    def __init__(self, objects: Objects, members: Members, opened: dict[TaskKey, Opening]) -> None:
        self._objects = objects
        self._members = members
        self._opened = opened
        self._noted: dict[TaskKey, Opening] = {}
        self._noting = anyio.Lock()
        self._versions: dict[TaskKey, str] = {}
        #: Since when nothing of a task is here but what it was opened with, by the clock on the wall.
        self._idle: dict[TaskKey, float] = {}
        self.own: set[TaskKey] = set()

    def covers(self, task: TaskKey) -> bool:
        return True

    async def claim(self, task: TaskKey, *, is_sent: bool = False) -> Claimed:
        if self._members.has_ended:
            return await self._handed_on(task)
        lead = self._members.peer(self._members.lead(task))
        if lead is not None and not is_sent:
            return Claimed(lead, is_certain=False)
        for _ in range(ATTEMPTS):
            made = await self._objects.make("leases", self._body(task))
            found = made or await self._objects.found("leases", self._name(task))
            if found is None:
                continue  # it was given up in between
            holder = str(found["spec"].get("holderIdentity", ""))
            if holder == self._members.instance:
                own = await self._confirmed(task, found, is_given_up=made is None and task not in self.own)
                if own is None:
                    continue
                return self._is_own(task, own)
            peer = await self._living(holder)
            if peer is not None:
                self._lose(task)
                return Claimed(peer)
            taken = await self._take(task, holder)
            if taken is not None:
                return self._is_own(task, taken, holder)
        raise EngineUnavailable("Other servers change at every attempt which of them has the task. Call again.")

    async def _handed_on(self, task: TaskKey) -> Claimed:
        """The server that is to say who has a task, for one that has given up all of its own."""
        await self._members.look()
        lead = self._members.peer(self._members.lead(task))
        if lead is None:
            raise EngineUnavailable("The server is closing, and no other one of its deployment lives; call again.")
        return Claimed(lead, is_certain=False)

    def _is_own(self, task: TaskKey, found: dict[str, Any], dead: str = "") -> Claimed:
        self._versions[task] = str(found["metadata"]["resourceVersion"])
        self.own.add(task)
        known = _opening(found)
        if known is not None and known[0] == task:
            self._noted[task] = known[1]
            self._opened.setdefault(task, known[1])
            self._idle[task] = _time_of(found)
        return Claimed(dead=dead)

    async def note_opened(self) -> None:
        """Write down what tasks were opened with that have been opened, or closed, since this was called last."""
        async with self._noting:  # of two writings, the last one must be the newer
            for task in [one for one in self.own if self._opened.get(one) != self._noted.get(one)]:
                await self._note(task, self._opened.get(task))

    async def _note(self, task: TaskKey, opening: Opening | None) -> None:
        text = "" if opening is None else document_of(task, opening)
        steps = [test(_HOLDER, self._members.instance), set_to(at_annotation(OPENING), text)]
        changed = await self._objects.change("leases", self._name(task), steps)
        if task not in self.own:
            return  # another server has taken it meanwhile
        if changed is not None:
            self._versions[task] = str(changed["metadata"]["resourceVersion"])
        self._noted.pop(task, None)
        if opening is not None:
            self._noted[task] = opening

    async def seize_opened(self, dead: str, leads: Callable[[TaskKey], bool]) -> None:
        """Take the tasks of a dead server that were opened with something, which their next server is to know.

        Arguments:
            leads: whether this server is the one for a task.
        """
        known = [found for one in await self._of(dead, is_fresh=False) if (found := _opening(one)) is not None]
        for task, _ in known:
            if leads(task):
                await self.seize(task, dead)

    def _lose(self, task: TaskKey) -> None:
        """Another server has it, and knows what there is to know."""
        self.own.discard(task)
        self._opened.pop(task, None)
        self._noted.pop(task, None)
        self._versions.pop(task, None)

    async def _living(self, holder: str) -> Peer | None:
        """Where a server is reached that has a task, if it lives. One that has just come is looked for."""
        return await self._members.found(holder)

    async def _take(self, task: TaskKey, holder: str) -> dict[str, Any] | None:
        """Take a task of a dead server; None where it lives after all, or another server was faster."""
        if not await self._members.declare_dead(holder):
            return None
        steps = [
            test(_HOLDER, holder),
            test(_LIFE, self._members.life_of(holder)),
            set_to(_HOLDER, self._members.instance),
            set_to(_LIFE, self._members.life),
            set_to(at_label(INSTANCE), self._members.instance),
        ]
        return await self._objects.change("leases", self._name(task), steps)

    async def _confirmed(
        self, task: TaskKey, found: dict[str, Any], *, is_given_up: bool = False
    ) -> dict[str, Any] | None:
        """A task of this server's as it is in its present life; None where its Lease has changed or gone.

        Arguments:
            is_given_up: `release` may be deleting the Lease just now: it is written anew, so that only one succeeds.
        """
        if found["spec"].get("leaseTransitions", 0) == self._members.life and not is_given_up:
            return found
        steps = [
            test(_HOLDER, self._members.instance),
            set_to(_LIFE, self._members.life),
            set_to(_TIME, micro_time(time.time())),
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
        for task in [one for one in tasks if one not in self._opened]:  # that is remembered until it is closed
            self.own.discard(task)
            self._noted.pop(task, None)
            version = self._versions.pop(task, "")
            with suppress(TaskcellError):
                found = await self._objects.found("leases", self._name(task))
                if found is not None and found["metadata"]["resourceVersion"] == version:
                    await self._objects.delete("leases", found)
        with suppress(TaskcellError):
            await self._forget_old([task for task in tasks if task in self._opened])

    async def _forget_old(self, tasks: Collection[TaskKey]) -> None:
        """Forget what tasks were opened with that have been idle for as long as a folder remembers them."""
        self._idle = {task: since for task, since in self._idle.items() if task in tasks}
        for task in tasks:
            since = self._idle.get(task)
            if since is None:  # it was in use until now
                self._idle[task] = time.time()
                steps = [test(_HOLDER, self._members.instance), set_to(_TIME, micro_time(self._idle[task]))]
                if changed := await self._objects.change("leases", self._name(task), steps):
                    self._versions[task] = str(changed["metadata"]["resourceVersion"])
            elif careful_time() - since > KEPT_FOR:
                self._opened.pop(task, None)

    async def check(self) -> Collection[TaskKey]:
        """See which tasks are still this server's, which was away; returns those that are not any more."""
        held = {one["metadata"]["name"]: one for one in await self._of(self._members.instance)}
        lost = []
        for task in list(self.own):
            found = held.get(self._name(task))  # or it was claimed since that list was made
            found = found or await self._objects.found("leases", self._name(task))
            is_held = found is not None and found["spec"].get("holderIdentity") == self._members.instance
            own = await self._confirmed(task, found) if is_held and found is not None else None
            if own is None:
                lost.append(task)
            else:
                self._versions[task] = str(own["metadata"]["resourceVersion"])
        for task in lost:
            self._lose(task)
        return lost

    async def sweep(self) -> None:
        """What dead servers left goes with their Leases."""

    async def forget(self, instance: str) -> bool:
        """Remove the claims of a dead server on tasks that have no pod; False where some are still to be taken over."""
        left = await self._of(instance)
        for found in left:
            if _opening(found) is None:
                await self._objects.delete("leases", found)
        return all(_opening(found) is None for found in left)

    async def _of(self, instance: str, *, is_fresh: bool = True) -> Collection[dict[str, Any]]:
        return await self._objects.listed("leases", is_fresh=is_fresh, role=CLAIM, instance=instance)

    def _body(self, task: TaskKey) -> dict[str, Any]:
        instance = self._members.instance
        meta = {"name": self._name(task), "labels": self._objects.labels(role=CLAIM, instance=instance)}
        meta["annotations"] = {OPENING: ""}  # a patch adds to what is there
        spec = {
            "holderIdentity": instance,
            "leaseTransitions": self._members.life,
            "renewTime": micro_time(time.time()),
        }
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec}

    def _name(self, task: TaskKey) -> str:
        return self._objects.name(CLAIM, task.digest)


def _time_of(found: Mapping[str, Any]) -> float:
    """When a claim's task was idle last, or was claimed; now, where no server has written that."""
    with suppress(ValueError, TypeError, KeyError):
        return datetime.fromisoformat(found["spec"]["renewTime"]).timestamp()
    return time.time()


def _opening(found: Mapping[str, Any]) -> tuple[TaskKey, Opening] | None:
    """The task of a claim, and what it was opened with; None where no server has written that."""
    text = found["metadata"].get("annotations", {}).get(OPENING, "")
    with suppress(*OPENING_FAULTS):
        return opening_of(text) if text else None
    return None
