"""The servers of a deployment on a cluster: a Lease for each, renewed as long as it lives; and who leads for a task."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import anyio

from taskcell.deployment.base import Peer
from taskcell.deployment.cluster.objects import MEMBER, Objects, at_annotation, set_to, test
from taskcell.deployment.cluster.seen_lease import SeenLease, is_address, micro_time
from taskcell.engine.kubernetes.pod import LABEL_PREFIX
from taskcell.model import TaskKey

#: Seconds between two renewals, and after which a Lease that is not renewed is a dead server's: four may be late. The
#: simulation (`bench/fleet`) has the same, and its tasks are taken up within fifteen seconds.
RENEW_EVERY, TERM = 2.0, 10.0
#: Servers that the tasks of one principal are spread over: with all of them on one, its places are the first bottleneck
#: (docs/kubernetes-scale.md).
SPREAD = 8
ADDRESS, LEAVING, UNSAID, CERTIFICATE = (LABEL_PREFIX + word for word in ("address", "leaving", "notes", "certificate"))
#: What LEAVING may be: it leads for no task any more, or it has ended.
LEAVES, ENDED = "leaves", "ended"


class Members:
    """Every server counts for itself how long the others' Leases have not been renewed: no two clocks are compared.

    Every method that asks raises EngineUnavailable, EngineError.

    Arguments:
        url: where this server serves HTTP for the others.
        certificate: by which they know it there; empty where there is no TLS.
        clock: seconds of a clock that only goes forward.
    """

    def __init__(
        self, objects: Objects, url: str, clock: Callable[[], float] = time.monotonic, *, certificate: str = ""
    ) -> None:
        self._objects = objects
        self._url = url
        self._certificate = certificate
        self._clock = clock
        self._seen: dict[str, SeenLease] = {}
        #: Which life of a server is over. A list that was asked for before that, or one from memory, does not show it.
        self._over: dict[str, int] = {}
        self._renewed = self._looked = 0.0
        #: Of changes to this server's own Lease one goes after the other: each tests what the last one wrote.
        self._changing = anyio.Lock()
        #: What LEAVING is there, as far as only this server has written it.
        self._said = ""
        self.instance = ""
        self.is_leaving = self.has_ended = False
        #: How often this server was declared dead and lived on. What was its own before has to be confirmed then.
        self.life = 0

    # --- this server ---------------------------------------------------------------------------------------------

    async def enter(self, instance: str) -> None:
        """Be a member under this name, and learn of the others."""
        self.instance = instance
        await self._make()
        await self.look()
        for name in [name for name, seen in self._seen.items() if seen.annotation(ADDRESS) == self._url]:
            if name != instance:  # this one listens there now, so that the process before it has ended
                await self.declare_dead(name)

    async def _make(self) -> None:
        meta = {
            "name": self._name(self.instance),
            "labels": self._objects.labels(role=MEMBER, instance=self.instance),
            "annotations": {ADDRESS: self._url, LEAVING: self._says, UNSAID: "[]"} | {CERTIFICATE: self._certificate},
        }
        spec = {
            "holderIdentity": self.instance,
            "leaseDurationSeconds": round(TERM),
            "renewTime": _now(),
        }
        spec |= {"leaseTransitions": self.life}
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec}
        await self._objects.make("leases", body)
        self._renewed = self._clock()

    async def renew(self) -> bool:
        """Renew this server's Lease. Returns False where another one has declared it dead, or deleted it.

        One that has ended goes on with that as long as it answers what it was asked: see `may_answer`.
        """
        async with self._changing:
            if self.has_ended:
                answers = [test("/spec/holderIdentity", self.instance), set_to("/spec/renewTime", _now())]
                await self._objects.change("leases", self._name(self.instance), answers)
                return True
            began, was_late, said = self._clock(), self.has_lapsed, self._says
            steps = [test("/spec/holderIdentity", self.instance), *self._saying(), set_to("/spec/renewTime", _now())]
            if await self._objects.change("leases", self._name(self.instance), steps) is None:
                await self._come_back()
                return False
            self._said = said
            self._renewed = began
            return not was_late

    async def _come_back(self) -> None:
        """Live again after having been declared dead. Whoever did that has taken, or takes, what this server had."""
        began = self._clock()
        self._renewed = began - TERM  # whatever becomes of this request, nothing is sure before the next renewal
        self.life += 1
        said = self._says
        steps = [
            set_to(at_annotation(LEAVING), said),
            set_to("/spec/leaseTransitions", self.life),
            set_to("/spec/renewTime", _now()),
        ]
        if await self._objects.change("leases", self._name(self.instance), steps) is None:
            await self._make()
        self._said = said
        self._renewed = began

    @property
    def _says(self) -> str:
        return LEAVES if self.is_leaving else ""

    def _saying(self) -> Sequence[Mapping[str, Any]]:
        """Steps of a patch that fail where another server has declared this one dead."""
        return (test(at_annotation(LEAVING), self._said), set_to(at_annotation(LEAVING), self._says))

    async def declare_dead(self, instance: str) -> bool:
        """Say that a server is dead before anything of it is taken; False where it has renewed its Lease meanwhile.

        It learns of that at its next renewal, whatever its own clock says.
        """
        seen = self._seen.get(instance)
        if seen is None:  # its Lease went when all of it was taken, or it has come since the last look
            return await self._objects.found("leases", self._name(instance)) is None
        if self._is_over(instance):
            return True
        steps = [test("/spec/renewTime", seen.stamp), set_to(at_annotation(LEAVING), ENDED)]
        changed = await self._objects.change("leases", self._name(instance), steps)
        # As it stands in the store: what the API server has in memory may not have its last renewal yet.
        now = changed or await self._objects.found("leases", self._name(instance))
        if now is None:
            return True
        lease = SeenLease(now, self._clock())
        self._see(instance, replace(lease, since=seen.since) if lease.stamp == seen.stamp else lease)
        return self._is_over(instance)

    def _see(self, instance: str, seen: SeenLease) -> None:
        self._seen[instance] = seen
        if seen.annotation(LEAVING) == ENDED:
            self._over[instance] = max(seen.life, self._over.get(instance, 0))

    def _is_over(self, instance: str) -> bool:
        return self._over.get(instance, -1) >= self._seen[instance].life

    @property
    def has_lapsed(self) -> bool:
        """Others may count this server as dead: its Lease was not renewed in time."""
        return self._clock() - self._renewed >= TERM

    async def annotate(self, key: str, text: str) -> None:
        """Write something for others beside this server's address."""
        await self._objects.change("leases", self._name(self.instance), [set_to(at_annotation(key), text)])

    async def end(self) -> None:
        """Be dead in the others' eyes at once, and leave them what was written down."""
        self.is_leaving = True
        async with self._changing:  # after a renewal that is under way, which would come back to life
            self.has_ended = True
            await self.annotate(LEAVING, ENDED)

    async def begin_to_leave(self) -> None:
        """Live on, and lead for no task any more. One that was declared dead meanwhile learns that when it renews."""
        self.is_leaving = True
        async with self._changing:
            if await self._objects.change("leases", self._name(self.instance), self._saying()) is not None:
                self._said = LEAVES

    # --- the others ----------------------------------------------------------------------------------------------

    async def look(self) -> None:
        """See how the others' Leases stand now."""
        asked = self._clock()
        # Where the cluster could not be asked for a while, nobody could renew; each has a term to do that now.
        was_blind = asked - self._looked > TERM / 2
        leases = await self._objects.listed("leases", is_fresh=False, role=MEMBER)
        before, self._seen = self._seen, {}
        for lease in leases:
            name, seen = str(lease.get("spec", {}).get("holderIdentity", "")), SeenLease(lease, self._clock())
            if lease["metadata"]["name"] != self._name(name) or not is_address(seen.annotation(ADDRESS)):
                continue  # no server has written that
            last = None if was_blind else before.get(name)
            self._see(name, replace(seen, since=last.since) if last is not None and last.stamp == seen.stamp else seen)
        self._over = {name: life for name, life in self._over.items() if name in self._seen}
        self._looked = asked

    def is_alive(self, instance: str) -> bool:
        """Whether a server lives, as far as this one knows; it does itself."""
        if instance == self.instance:
            return True
        return self.may_answer(instance) and not self._is_over(instance)

    def may_answer(self, instance: str) -> bool:
        """Whether a server may still answer what it was asked, though it has given up all that it had."""
        seen = self._seen.get(instance)
        # To the last look, and not to now: one that has not looked for a while takes nobody for dead.
        return seen is not None and self._looked - seen.since < TERM

    def names(self) -> Collection[str]:
        """Every server that has a Lease, dead or alive."""
        return list(self._seen)

    def dead(self) -> Collection[str]:
        """Those whose Lease has run out and is still there."""
        return [name for name in self._seen if not self.is_alive(name)]

    def peer(self, instance: str) -> Peer | None:
        """Where a server is reached that lives; None for this server and for one that does not live."""
        seen = self._seen.get(instance)
        if seen is None or instance == self.instance or not self.is_alive(instance):
            return None
        return Peer(seen.annotation(ADDRESS), instance, seen.annotation(CERTIFICATE))

    def life_of(self, instance: str) -> int:
        """Which life of a server this one has seen last, or has declared to be over."""
        seen = self._seen.get(instance)
        return 0 if seen is None else seen.life

    def peers(self) -> Sequence[Peer]:
        """All the others that live."""
        return [peer for peer in map(self.peer, self._seen) if peer is not None]

    async def found(self, instance: str) -> Peer | None:
        """As `peer`; one that has just come is looked for."""
        if (peer := self.peer(instance)) is None and instance not in self.dead():
            await self.look()
            peer = self.peer(instance)
        return peer

    def notes(self, instance: str) -> str:
        """What a server has written down that no answer had said."""
        seen = self._seen.get(instance)
        return "" if seen is None else seen.annotation(UNSAID)

    async def remove(self, instance: str) -> None:
        """Remove a server's Lease, as it stands now."""
        found = await self._objects.found("leases", self._name(instance))
        if found is not None and (instance == self.instance or not self.is_alive(instance)):
            await self._objects.delete("leases", found)

    # --- who leads -----------------------------------------------------------------------------------------------

    def lead(self, task: TaskKey) -> str:
        """The server that is to have a task that nobody has: by a hash, so that a server that comes or goes moves no
        tasks but those that are its own."""
        return self.lead_of(f"{len(task.principal)}:{task.principal}/{part_of(task)}")

    def lead_of(self, shard: str) -> str:
        """The server that is to do something that one of them must do; this one where there is no other."""
        words = [
            (hashlib.sha256(f"{name} {shard}".encode("utf-8", "surrogatepass")).digest(), name) for name in self.able()
        ]
        return max(words)[1] if words else self.instance

    def able(self) -> Collection[str]:
        """The servers that may get further tasks."""
        return [name for name in self._seen if self.is_alive(name) and not self._leaves(name)]

    def _leaves(self, name: str) -> bool:
        return self.is_leaving if name == self.instance else bool(self._seen[name].annotation(LEAVING))

    def _name(self, instance: str) -> str:
        return self._objects.name(MEMBER, instance)


def part_of(task: TaskKey) -> int:
    """Which of the parts of a principal's tasks a task is in."""
    return int(hashlib.sha256(task.task.encode("utf-8", "surrogatepass")).hexdigest()[:8], 16) % SPREAD


def _now() -> str:
    return micro_time(time.time())
