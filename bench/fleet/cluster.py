"""The cluster's side: the API server with its Leases, the scheduler, nodes that start pods and get lost, the quota."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from random import Random

from fleet import measured
from fleet.clock import Clock, Rate, Station, nothing
from taskcell.engine.kubernetes.pod import SPREAD_WITHIN
from taskcell.model import TaskKey

#: Seconds between two attempts of the scheduler where no node has room, and of a server that the quota has refused.
RETRY = 1.0


class PodState(Enum):
    PENDING = "pending"
    RUNNING = "running"
    LOST = "lost"
    ENDING = "ending"
    GONE = "gone"


@dataclass(slots=True, eq=False)
class Pod:
    """One sandbox. `task` and `owner` are its annotations; both are empty names until they are written.

    Arguments:
        begun: the value of the label by which pods that begin together are spread.
    """

    owner: str
    task: TaskKey | None = None
    node: Node | None = None
    state: PodState = PodState.PENDING
    started: Callable[[], None] | None = None
    failed: Callable[[], None] | None = None
    begun: int = 0


@dataclass(slots=True, eq=False)
class Node:
    """One machine of the cluster."""

    number: int
    starting: Station
    lives: bool = True
    pods: dict[Pod, None] = field(default_factory=dict)
    begun: Counter[int] = field(default_factory=Counter)


class Cluster:
    """Creates, hands over and deletes pods, with the times that were measured.

    Arguments:
        nodes: how many there are.
        quota: pods that the namespace may have, those included whose objects are still going.
        binds: pods that the scheduler binds in a second.
        spreads_begun: pods that begin together are spread over the nodes; otherwise the emptiest node gets each.
        lists_from_memory: lists come from the API server's memory, and not from etcd.
        api_cores: processors of the API server and etcd.
    """

    def __init__(
        self,
        clock: Clock,
        random: Random,
        *,
        nodes: int,
        quota: int,
        binds: float,
        spreads_begun: bool = True,
        lists_from_memory: bool = True,
        api_cores: int = measured.API_CORES,
    ) -> None:
        self._clock, self._random = clock, random
        self._quota, self._bind = quota, 1 / binds
        self._spreads_begun, self._lists_from_memory = spreads_begun, lists_from_memory
        self.processor = Station(clock, api_cores)
        self.requests = Rate(clock)
        #: Which server has a task: the holder of the task's Lease.
        self.claims: dict[TaskKey, str] = {}
        self.scheduler = Station(clock)
        self.nodes = [Node(number, Station(clock, measured.STARTS_AT_ONCE)) for number in range(nodes)]
        self.by_task: dict[TaskKey, Pod] = {}
        self.pods: dict[Pod, None] = {}
        self.most_objects = self.created = self.deleted = self.refused = self.unschedulable = 0
        self.away_until = 0.0

    # --- requests --------------------------------------------------------------------------------------------------

    def write(self, then: Callable[[], None]) -> None:
        """A request that changes an object."""
        self._ask(measured.WRITE_COST, measured.API_WRITE, then)

    def read(self, then: Callable[[], None]) -> None:
        """A request for one object."""
        self._ask(measured.READ_COST, measured.API_READ, then)

    def list_leases(self, servers: int, then: Callable[[], None]) -> None:
        """A list of the servers' Leases, for which those of tasks are read, too."""
        each = measured.LEASE_FROM_MEMORY if self._lists_from_memory else measured.LEASE_FROM_ETCD
        cost = measured.READ_COST + each * (len(self.claims) + servers) + measured.RETURNED * servers
        self._ask(cost, measured.API_READ, then)

    def list_pods(self, then: Callable[[], None]) -> None:
        """A list of one server's pods, for which all others are read, too."""
        each = measured.POD_FROM_MEMORY if self._lists_from_memory else measured.POD_FROM_ETCD
        self._ask(measured.READ_COST + each * len(self.pods), measured.API_READ, then)

    def pass_call(self) -> None:
        """The bytes of a call pass the API server."""
        self.processor.count(measured.CALL_PASSES)

    def _spend(self, seconds: float, requests: int) -> None:
        """Processor time of the API server that nobody here waits for, and requests of others."""
        self.requests.note(requests)
        self.processor.serve(seconds, nothing)

    def _ask(self, cost: float, latency: measured.Latency, then: Callable[[], None]) -> None:
        self.requests.note()
        self.processor.serve(cost, lambda: self._answer(latency.draw(self._random), then))

    def _answer(self, seconds: float, then: Callable[[], None]) -> None:
        self._clock.after(max(0.0, self.away_until - self._clock.now) + seconds, then)

    # --- Leases of tasks -------------------------------------------------------------------------------------------

    def claim(self, task: TaskKey, server: str, then: Callable[[str], None]) -> None:
        """Have a task, unless another server has it: `then` hears who has it now."""

        def make() -> None:
            if task in self.claims and self.claims[task] != server:
                self.read(lambda: then(self.claims.setdefault(task, server)))
            else:
                self.claims[task] = server
                then(server)

        self.write(make)

    def seize(self, task: TaskKey, dead: str, server: str, then: Callable[[bool], None]) -> None:
        """Have a task of a dead server, unless another one is faster: `then` hears whether it was not."""

        def patch() -> None:
            if self.claims.get(task, dead) == dead:
                self.claims[task] = server
            then(self.claims[task] == server)

        self.write(patch)

    def release(self, task: TaskKey, server: str) -> None:
        """Give a task up."""

        def delete() -> None:
            if self.claims.get(task) == server:
                del self.claims[task]

        self.read(lambda: self.write(delete))

    def open_channel(self, then: Callable[[], None]) -> None:
        """An exec stream into a pod that runs."""
        self._clock.after(measured.OPEN_CHANNEL.draw(self._random), then)

    # --- pods ----------------------------------------------------------------------------------------------------

    def create(self, pod: Pod) -> None:
        """Start a pod; its `started` or `failed` is called in the end. The quota's refusal is waited out."""
        pod.begun = int(self._clock.now // SPREAD_WITHIN)
        self.write(partial(self._admit, pod))

    def _admit(self, pod: Pod) -> None:
        if pod.state is not PodState.PENDING:
            return
        if len(self.pods) >= self._quota:
            self.refused += 1
            self._clock.after(RETRY, partial(self.create, pod))
            return
        self.pods[pod] = None
        self.created += 1
        self._spend(measured.POD_BEGINS, measured.BEGIN_REQUESTS)
        self.most_objects = max(self.most_objects, len(self.pods))
        if pod.task is not None:
            self.by_task[pod.task] = pod
        self.scheduler.serve(self._bind, partial(self._schedule, pod))

    def _schedule(self, pod: Pod) -> None:
        if pod.state is not PodState.PENDING:
            return
        fitting = [node for node in self.nodes if node.lives and len(node.pods) < measured.PODS_PER_NODE]
        if not fitting:
            self.unschedulable += 1
            self._clock.after(RETRY, lambda: self.scheduler.serve(self._bind, partial(self._schedule, pod)))
            return
        node = pod.node = min(fitting, key=partial(self._load, pod.begun))
        node.pods[pod] = None
        node.begun[pod.begun] += 1
        node.starting.serve(measured.POD_START.draw(self._random), partial(self._run, pod))

    def _load(self, begun: int, node: Node) -> tuple[int, int]:
        """By what the scheduler compares nodes: the constraint of the pod first, then how full they are."""
        return (node.begun[begun] if self._spreads_begun else 0, len(node.pods))

    def _run(self, pod: Pod) -> None:
        if pod.state is PodState.PENDING and pod.node is not None and pod.node.lives:
            pod.state = PodState.RUNNING
            if pod.started is not None:
                pod.started()

    def assign(self, pod: Pod, before: str, owner: str, task: TaskKey, then: Callable[[bool], None]) -> None:
        """Give a pod to a server and a task by a tested PATCH: `then` hears whether `before` still had it."""

        def patch() -> None:
            wins = pod.owner == before and pod.state in (PodState.RUNNING, PodState.LOST)
            if wins:
                pod.owner, pod.task = owner, task
                self.by_task[task] = pod
            then(wins)

        self.write(patch)

    def delete(self, pod: Pod) -> None:
        """End a pod. Its object, with its share of the quota and of its node, goes some seconds later."""
        if pod.state in (PodState.ENDING, PodState.GONE):
            return
        pod.state = PodState.ENDING
        if pod.task is not None and self.by_task.get(pod.task) is pod:
            del self.by_task[pod.task]
        if pod in self.pods:
            self._spend(measured.POD_ENDS, measured.END_REQUESTS)
            self.write(lambda: self._clock.after(self._random.uniform(*measured.POD_GONE), partial(self._gone, pod)))

    def _gone(self, pod: Pod) -> None:
        pod.state = PodState.GONE
        del self.pods[pod]
        self.deleted += 1
        if pod.node is not None:
            pod.node.pods.pop(pod, None)

    # --- faults --------------------------------------------------------------------------------------------------

    def cut_off(self, node: Node, back_after: float, lost: Callable[[Pod], None]) -> None:
        """Lose a node. Its pods do not come back with it; `lost` is called for each that ran, once that is known."""
        node.lives = False
        for pod in list(node.pods):
            if pod.state is PodState.RUNNING:
                pod.state = PodState.LOST
                self._clock.after(measured.NODE_SILENCE, partial(lost, pod))
            elif pod.state is PodState.PENDING:
                self._clock.after(measured.NODE_GRACE, partial(self._not_started, pod))
        self._clock.after(back_after, lambda: setattr(node, "lives", True))

    @staticmethod
    def _not_started(pod: Pod) -> None:
        if pod.state is PodState.PENDING and pod.failed is not None:
            pod.failed()

    def go_away(self, seconds: float) -> None:
        """Nothing is answered for so long, and what happens in sandboxes is heard of afterwards."""
        self.away_until = self._clock.now + seconds
