"""Servers behind one Service: who has a task, how its calls get there, and what happens when a server dies."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache, partial
from random import Random

from fleet import measured
from fleet.clock import Clock
from fleet.cluster import Cluster, Pod, PodState
from fleet.server import Server
from fleet.work import Call, Task, Work
from taskcell.deployment.cluster import members
from taskcell.model import TaskKey
from taskcell.pool.bounds import Bounds

#: Seconds after which a client asks again whose call found no room, or no server.
ASK_AGAIN = 5.0
#: Seconds between two attempts to hand a call to the server of a dead one.
LOOK_AGAIN = 1.0
#: Attempts of a client, after which the task is given up.
ATTEMPTS = 200
#: Seconds that a server is away that has died, and a node.
SERVER_BACK, NODE_BACK = 60.0, 300.0
#: Sandboxes of one principal on all servers.
PER_PRINCIPAL = 64


@dataclass(frozen=True, slots=True)
class Plan:
    """One run.

    Arguments:
        spread: servers that the tasks of one principal are spread over.
        binds: pods that the scheduler binds in a second.
        lasts: seconds within which the faults happen.
        places: sandboxes of one server.
        spreads_begun, lists_from_memory, api_cores: see Cluster.
    """

    servers: int = 100
    nodes: int = 100
    spread: int = members.SPREAD
    binds: float = measured.BINDS_PER_SECOND
    lasts: float = 7200.0
    places: int = 64
    warm: int = 1
    spreads_begun: bool = True
    lists_from_memory: bool = True
    api_cores: int = 2 * measured.API_CORES

    @property
    def bounds(self) -> Bounds:
        """Of one server. A principal's tasks do not fall evenly: each server allows twice its share."""
        each = min(PER_PRINCIPAL, -(-2 * PER_PRINCIPAL // self.spread))
        return Bounds(max_sandboxes=self.places, max_per_principal=each, warm=self.warm)


@dataclass(slots=True)
class Found:
    """What is counted: answers by outcome, tasks by how they ended, seconds beyond the command's own."""

    answers: Counter[str] = field(default_factory=Counter)
    tasks: Counter[str] = field(default_factory=Counter)
    first: list[float] = field(default_factory=list)
    later: list[float] = field(default_factory=list)
    hops: int = 0
    calls: int = 0


class Fleet:
    """Everything together. The same seed gives the same run."""

    def __init__(self, plan: Plan, seed: int) -> None:
        self.clock, self.plan = Clock(), plan
        self.random = Random(seed)
        self.work = Work(Random(seed + 1))
        quota = min(plan.nodes * measured.PODS_PER_NODE, plan.servers * plan.places * 2)
        self.cluster = Cluster(
            self.clock,
            Random(seed + 2),
            nodes=plan.nodes,
            quota=quota,
            binds=plan.binds,
            spreads_begun=plan.spreads_begun,
            lists_from_memory=plan.lists_from_memory,
            api_cores=plan.api_cores,
        )
        self.found = Found()
        self.adopted: list[float] = []
        self.died: dict[str, float] = {}
        #: Servers that have died, and whose Lease is still there.
        self.dead: dict[str, None] = {}
        self.longest_renewal = 0.0
        #: The highest share of each resource that was in use before the last task's end; pods and requests a second.
        self.peaks: dict[str, float] = {}
        #: For how many seconds of that time each was used up.
        self.used_up: dict[str, float] = {}
        self.binds = self.requests = 0.0
        self.is_working = True
        self._open = self._to_come = self._generation = 0
        self._lead = cache(self._lead_of)
        self.servers = {name: Server(name, self) for name in (f"server {n}" for n in range(plan.servers))}
        self.all_servers = list(self.servers.values())
        self._count_living()

    # --- tasks ---------------------------------------------------------------------------------------------------

    def _begin(self, task: Task) -> None:
        self._to_come -= 1
        self._open += 1
        self._call(task, is_first=True)

    def _call(self, task: Task, *, is_first: bool) -> None:
        self.found.calls += 1
        self.send(self.work.call(task, self.clock.now, is_first=is_first))

    def answered(self, call: Call, outcome: str) -> None:
        """A call has its answer. What found no room is asked for again."""
        call.answers.append(outcome)
        self.found.answers[outcome] += 1
        task = call.task
        if outcome in ("no room", "failed"):
            task.attempts += 1
            call.leg += 1
            if task.attempts < ATTEMPTS:
                self.clock.after(ASK_AGAIN, partial(self.send, call))
            else:
                self._finish(task, "given up")
            return
        (self.found.first if call.is_first else self.found.later).append(self.clock.now - call.asked - call.seconds)
        task.calls -= 1
        if task.calls:
            self.clock.after(self.work.pause(), lambda: self._call(task, is_first=False))
        else:
            self._finish(task, "done")

    def _finish(self, task: Task, how: str) -> None:
        self.found.tasks[how] += 1
        self._open -= 1
        following = self.work.next_of(task.batch) if task.batch is not None else None
        if following is not None:
            self._to_come += 1
            self._begin(following)
        elif not self._open and not self._to_come:
            self.is_working = False
            self._note_peaks()
            for server in self.servers.values():
                server.end()
            for pod in list(self.cluster.pods):  # of a dead server: the next start finds them
                self.cluster.delete(pod)

    def _note_peaks(self) -> None:
        """Before everything ends at once, which no client waits for."""
        cluster, servers, bounds = self.cluster, self.all_servers, self.plan.bounds
        stations = {
            "scheduler": [cluster.scheduler],
            "starts on one node": [node.starting for node in cluster.nodes],
            "processor of one server": [server.loop for server in servers],
            "API server": [cluster.processor],
        }
        self.peaks = {
            "places of one server": max(server.wanted.most for server in servers) / bounds.max_sandboxes,
            "bound of one principal": max(server.wanted.most_of_one for server in servers) / bounds.max_per_principal,
        } | {name: max(one.peak for one in some) for name, some in stations.items()}
        self.used_up = {
            "places of one server": max(server.wanted.places_used_up for server in servers),
            "bound of one principal": max(server.wanted.bound_used_up for server in servers),
        } | {name: max(one.used_up for one in some) for name, some in stations.items()}
        self.binds, self.requests = cluster.scheduler.begun.peak, cluster.requests.peak

    # --- routing -------------------------------------------------------------------------------------------------

    def send(self, call: Call) -> None:
        """The Service gives a request to any server that lives, which serves it if it has the task, or is to have it by
        the hash, and else hands it on."""
        if not self._living:
            self.clock.after(ASK_AGAIN, partial(self.send, call))
            return
        entry, lead = self.random.choice(self._living), self.servers[self.owner(call.task.key)]
        if entry is lead or call.task.key in entry.own:
            entry.serve(call)
        elif lead.lives:
            self.found.hops += 1
            entry.loop.serve(measured.HAND_ON_COST, partial(self._arrive, lead, call))
        else:  # its Lease has not run out yet
            self.clock.after(LOOK_AGAIN, partial(self.send, call))

    def _arrive(self, owner: Server, call: Call) -> None:
        if owner.lives:
            owner.serve(call)
        else:
            self.send(call)

    def hand_on(self, call: Call, holder: str) -> None:
        """The server of the hash has found that another one has the task."""
        server = self.servers.get(holder)
        self.found.hops += 1
        call.leg += 1
        if server is not None and server.lives:
            server.serve(call)
        else:
            self.clock.after(LOOK_AGAIN, partial(self.send, call))

    def owner(self, task: TaskKey) -> str:
        """Rendezvous hash over the servers whose Lease holds: of the principal, and of the part that its task is in."""
        part = int(hashlib.sha256(task.task.encode()).hexdigest()[:8], 16) % self.plan.spread
        return self._lead(f"{task.principal}/{part}", self._generation)

    def _lead_of(self, shard: str, _generation: int) -> str:
        return max(self.servers, key=lambda name: hashlib.sha256(f"{name} {shard}".encode()).digest())

    # --- faults --------------------------------------------------------------------------------------------------

    def _kill(self, name: str) -> None:
        """A server dies. Its calls are sent again by those who handed them on; its Lease runs out later."""
        if not self.is_working:
            return
        server = self.servers[name]
        server.lives = False
        self._count_living()
        self.died[name] = self.clock.now
        self.dead[name] = None
        for call in list(server.calls):
            call.leg += 1
            self.clock.after(LOOK_AGAIN, partial(self.send, call))
        self.clock.after(SERVER_BACK, lambda: self._come_back(name))

    def take_for_dead(self, name: str) -> None:
        """The first server has seen that its Lease has run out: the hash names others for its tasks from now on."""
        if self.servers.pop(name, None) is None:
            return
        self._generation += 1
        for pod in [pod for pod in self.cluster.pods if pod.owner == name]:
            if pod.task is None or pod.state is PodState.PENDING:
                self.cluster.delete(pod)

    def _come_back(self, name: str) -> None:
        """Another server is started in its place, under a name of its own."""
        if not self.is_working:
            return
        name += "+"
        self.servers[name] = Server(name, self)
        self.all_servers.append(self.servers[name])
        self._generation += 1
        self._count_living()

    def _count_living(self) -> None:
        self._living = [server for server in self.servers.values() if server.lives]

    # --- the run -------------------------------------------------------------------------------------------------

    def run(self, arrivals: Iterable[tuple[float, Task]], *, faults: bool = True) -> None:
        """Run until each task has ended and nothing is left."""
        for at, task in arrivals:
            self._to_come += 1
            self.clock.after(at, partial(self._begin, task))
        if faults:
            lasts = self.plan.lasts
            self.clock.after(lasts / 3, lambda: self.cluster.cut_off(self.cluster.nodes[0], NODE_BACK, self._lose))
            self.clock.after(lasts / 2, lambda: self._kill(next(iter(self.servers))))
            self.clock.after(lasts * 2 / 3, lambda: self.cluster.go_away(measured.API_OUTAGE))
        self.clock.run()

    def _lose(self, pod: Pod) -> None:
        """A pod's node is lost, and its server has waited long enough."""
        server = self.servers.get(pod.owner)
        if server is not None:
            server.lose(pod)
