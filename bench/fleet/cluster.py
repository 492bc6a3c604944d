"""The cluster's side: the API server, the scheduler, nodes that start pods and get lost, and the quota."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from random import Random

from fleet import measured
from fleet.clock import Clock, Station
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
    """One sandbox. `task` and `owner` are its annotations; both are empty names until they are written."""

    owner: str
    task: TaskKey | None = None
    node: Node | None = None
    state: PodState = PodState.PENDING
    started: Callable[[], None] | None = None
    failed: Callable[[], None] | None = None


@dataclass(slots=True, eq=False)
class Node:
    """One machine of the cluster."""

    number: int
    starting: Station
    lives: bool = True
    pods: dict[Pod, None] = field(default_factory=dict)


class Cluster:
    """Creates, hands over and deletes pods, with the times that were measured.

    Arguments:
        nodes: how many there are.
        quota: pods that the namespace may have, those included whose objects are still going.
        binds: pods that the scheduler binds in a second.
    """

    def __init__(self, clock: Clock, random: Random, *, nodes: int, quota: int, binds: float) -> None:
        self._clock, self._random = clock, random
        self._quota, self._bind = quota, 1 / binds
        self.api = Station(clock, measured.API_SEATS)
        self.scheduler = Station(clock)
        self.nodes = [Node(number, Station(clock, measured.STARTS_AT_ONCE)) for number in range(nodes)]
        self.by_task: dict[TaskKey, Pod] = {}
        self.pods: dict[Pod, None] = {}
        self.most_objects = self.created = self.deleted = self.refused = self.unschedulable = 0
        self.away_until = 0.0

    def write(self, then: Callable[[], None]) -> None:
        """A request that changes an object."""
        self.api.serve(measured.API_WRITE.draw(self._random), then)

    def read(self, then: Callable[[], None]) -> None:
        """A request for one object or a short list."""
        self.api.serve(measured.API_READ.draw(self._random), then)

    def open_channel(self, then: Callable[[], None]) -> None:
        """An exec stream into a pod that runs."""
        self._clock.after(measured.OPEN_CHANNEL.draw(self._random), then)

    # --- pods ----------------------------------------------------------------------------------------------------

    def create(self, pod: Pod) -> None:
        """Start a pod; its `started` or `failed` is called in the end. The quota's refusal is waited out."""
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
        node = pod.node = min(fitting, key=lambda node: len(node.pods))
        node.pods[pod] = None
        node.starting.serve(measured.POD_START.draw(self._random), partial(self._run, pod))

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
        self.api.close(seconds)
