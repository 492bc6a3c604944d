"""The runs that are compared, and the page of their figures."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from fleet import measured
from fleet.fleet import Fleet, Plan
from fleet.work import Task

RUSH = 1200.0
#: The share of a capacity from which on a resource counts as used up, and columns of prose.
FULL, WIDTH = 0.99, 120
#: Of evaluations, of which there are as many as servers: tasks at once, and seconds within which they begin.
AT_ONCE, WITHIN = 40, 600.0

#: What is done about each resource that is used up.
REMEDIES = {
    "places of one server": (
        "With a principal on one server, that server's `max_sandboxes` bounds the principal, and two that fall on one "
        "server share it while others stand empty. So the hash is of the principal and of a part that its task is in: "
        "each principal's tasks are spread over 8 servers, and each of these allows a principal twice its share of the "
        "whole bound. The bound of a principal is then exact to a factor of two, and the bound over all is the "
        "ResourceQuota."
    ),
    "scheduler": (
        "Kubernetes' scheduler binds 50 pods a second by default, and every new task needs a pod. Where the cluster is "
        "yours, raise `clientConnection.qps` of its configuration; where it is not, begin evaluations one after the "
        "other, or keep more sandboxes ready (`pool.warm`) before a rush. More servers do not help."
    ),
    "starts on one node": (
        "A node that comes back is empty, so the scheduler gives it every new pod, and it starts two at a time. A new "
        "task waits there while other nodes are idle. Spread pods by `topologySpreadConstraints` over nodes, or bring "
        "nodes back one by one under a taint that is taken off when there is no rush. More nodes help with the rest."
    ),
    "processor of one server": "Add servers: an event loop serves about 400 calls a second.",
    "API server": "Give the servers their own priority level (API Priority and Fairness), and renew Leases less often.",
}
_INTRODUCTION = """# Many servers on a cluster: a simulation

`make bench-fleet` writes this page; do not edit it. {tasks} tasks of four calls each on the average, on {servers}
servers of 64 places and {nodes} nodes of 110 pods, by seed {seed}. Nothing is started: time passes from event to event.
The decisions of the pool are the product's own code; how long each step takes was measured on a real cluster
(`bench/fleet/measured.py` has the source of each number). Several servers that share principals are a plan so far:
taskcell runs one server in a namespace. In each run a node is lost for five minutes, a server dies, and the API server
is away for 6.6 s.

Times are those beyond the command's own. "Lost" counts answers that say that the node was lost, "no room" those that
found no place within `acquire_timeout`; their clients ask again, and every task ends."""
_SHARES = """What share of its capacity each resource used in its busiest ten seconds. For places it is what was
wanted at once, which may be more than there are."""
_WATCH = (
    "Not in the table, for no limit of it was measured: a pod's life is {events} events. If each of {servers} servers "
    "watched all pods, the API server would send {worst:,.0f} events a second in the busiest ten seconds. So each "
    "server is to watch its own pods alone (a label with its name), and to find others' by one list when a call asks."
)
_FAULTS = (
    "The tasks of the server that died had another one after at most {adopted:.1f} s, ten of which are its Lease's. A "
    "call was handed on {hops:.2f} times on the average: the Service gives it to any server."
)
_ASSUMED = """Not simulated: pulls of images, the processor time of nodes, output, rolling upgrades, and clients that
cancel. Of two servers that both want a task's pod, the tested PATCH gives it to one, in the model as on the cluster."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One pattern of arrivals on one plan."""

    name: str
    plan: Plan
    evaluates: bool = False


SCENARIOS = (
    Scenario("an hour of teams, each principal on one server", Plan()),
    Scenario("the same, principals spread over 8 servers", Plan(spread=8)),
    Scenario("evaluations, each on one server", Plan(), evaluates=True),
    Scenario("the same, spread over 8 servers", Plan(spread=8), evaluates=True),
    Scenario("the hour's tasks in 20 minutes, spread", Plan(spread=8, lasts=RUSH)),
    Scenario("the same, a scheduler of 200 pods/s", Plan(spread=8, lasts=RUSH, binds=200.0)),
)


@dataclass(frozen=True, slots=True)
class Result:
    """What one run showed. Seconds beyond the command's own; shares of a capacity in its busiest ten seconds."""

    name: str
    took: float
    tasks: dict[str, int]
    answers: dict[str, int]
    first: tuple[float, float]
    later: tuple[float, float]
    hops: float
    pods: int
    most_pods: int
    peaks: dict[str, float]
    adopted: float
    binds: float
    watched_by_all: float


def run(scenario: Scenario, *, servers: int, tasks: int, seed: int) -> Result:
    """Run one scenario with as many servers, and as many nodes."""
    scenario = replace(scenario, plan=replace(scenario.plan, servers=servers, nodes=servers))
    fleet = Fleet(scenario.plan, seed)
    fleet.run(arrivals(fleet, scenario, tasks))
    found, cluster, servers = fleet.found, fleet.cluster, fleet.all_servers
    peaks = {
        "places of one server": max(server.most_wanted for server in servers) / scenario.plan.places,
        "scheduler": cluster.scheduler.peak,
        "starts on one node": max(node.starting.peak for node in cluster.nodes),
        "processor of one server": max(server.loop.peak for server in servers),
        "API server": cluster.api.peak,
    }
    creations = cluster.scheduler.peak_rate
    return Result(
        scenario.name,
        fleet.clock.now,
        dict(found.tasks),
        dict(found.answers),
        (percentile(found.first, 50), percentile(found.first, 99)),
        (percentile(found.later, 50), percentile(found.later, 99)),
        found.hops / found.calls,
        cluster.created,
        cluster.most_objects,
        peaks,
        max(fleet.adopted, default=0.0),
        creations,
        creations * measured.EVENTS_OF_A_POD * scenario.plan.servers,
    )


def arrivals(fleet: Fleet, scenario: Scenario, tasks: int) -> Iterable[tuple[float, Task]]:
    """The tasks of a scenario with the times at which they begin."""
    if scenario.evaluates:
        return fleet.work.evaluations(scenario.plan.servers, tasks, AT_ONCE, WITHIN)
    return fleet.work.spread_over(scenario.plan.lasts, tasks)


def percentile(values: Collection[float], percent: float) -> float:
    """The value that so many percent do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)] if ordered else 0.0


def page(results: Collection[Result], servers: int, tasks: int, seed: int) -> str:
    """The page."""
    lines = [*_INTRODUCTION.format(tasks=tasks, seed=seed, servers=servers, nodes=servers).splitlines()]
    lines += ["", "| run | first answer, p50 / p99 | later ones | lost | no room | most pods | binds/s |"]
    lines += ["| --- | --- | --- | --- | --- | --- | --- |", *map(_row, results)]
    lines += ["", *_SHARES.splitlines(), "", f"| run | {' | '.join(REMEDIES)} | first bottleneck |"]
    lines += ["| --- |" + " --- |" * (len(REMEDIES) + 1), *map(_shares, results), ""]
    found = {bottleneck(result): None for result in results}
    for resource in filter(None, found):
        lines += [*textwrap.wrap(f"**{resource[:1].upper()}{resource[1:]}.** {REMEDIES[resource]}", WIDTH), ""]
    worst = max(result.watched_by_all for result in results)
    lines += textwrap.wrap(_WATCH.format(events=measured.EVENTS_OF_A_POD, servers=servers, worst=worst), WIDTH)
    adopted = max(result.adopted for result in results)
    lines += ["", *textwrap.wrap(_FAULTS.format(adopted=adopted, hops=max(one.hops for one in results)), WIDTH)]
    return "\n".join([*lines, "", *_ASSUMED.splitlines(), ""])


def bottleneck(result: Result) -> str:
    """The resource that was used up the most, if one was at all."""
    name = max(result.peaks, key=lambda name: result.peaks[name])
    return name if result.peaks[name] >= FULL else ""


def _row(result: Result) -> str:
    ended, given_up = result.tasks.get("done", 0), result.tasks.get("given up", 0)
    assert ended + given_up == sum(result.tasks.values())
    first, later = (" / ".join(_seconds(value) for value in pair) for pair in (result.first, result.later))
    lost, refused = result.answers.get("lost", 0), result.answers.get("no room", 0)
    return f"| {result.name} | {first} | {later} | {lost} | {refused} | {result.most_pods} | {result.binds:.0f} |"


def _shares(result: Result) -> str:
    shares = " | ".join(f"{result.peaks[name]:.0%}" for name in REMEDIES)
    return f"| {result.name} | {shares} | {bottleneck(result) or 'none'} |"


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"
