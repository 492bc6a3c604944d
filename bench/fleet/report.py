"""The runs that are compared, and the page of their figures."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from fleet import measured
from fleet.fleet import Fleet, Plan
from fleet.work import Task

#: Seconds in which the same tasks come that otherwise come in twice the time.
RUSH = 3600.0
#: Columns of prose.
WIDTH = 120
#: Of evaluations, of which there are as many as servers: tasks at once, and seconds within which they begin.
AT_ONCE, WITHIN = 40, 600.0

PRINCIPAL = "bound of one principal"
#: What is done about each resource that is used up.
REMEDIES = {
    "places of one server": (
        "With a principal on one server, that server's `max_sandboxes` bounds the principal, and two that fall on one "
        "server share it while others stand empty. So the hash is of the principal and of one of eight parts that its "
        "task is in. Here each of these servers allows a principal twice its share of the whole bound: that of a "
        "principal is then exact to a factor of two, and the bound over all is the ResourceQuota."
    ),
    "scheduler": (
        "Kubernetes' scheduler binds 50 pods a second by default, and every new task needs a pod. Where the cluster is "
        "yours, raise `clientConnection.qps` of its configuration; where it is not, begin evaluations one after the "
        "other, or keep more sandboxes ready (`pool.warm`) before a rush. More servers do not help."
    ),
    "starts on one node": (
        "A node that comes back is empty, so the scheduler would give it every new pod, and it starts two at a time: a "
        "new task waits there while other nodes are idle. So each pod has a `topologySpreadConstraints` over the pods "
        "that begin within the same ten seconds, and each node gets its share of these. More nodes help with the rest."
    ),
    PRINCIPAL: (
        "Each evaluation and each person is one principal. Its tasks fall on eight servers, and each of these allows "
        "it a quarter of `max_per_principal`. Of two thousand people, the busiest one has every eighth task: its calls "
        "wait for each other, find no room, and hold up nobody else's. Raise its bound, or have it close its tasks."
    ),
    "processor of one server": "Add servers: an event loop serves about 400 calls a second.",
    "API server": (
        "Two things use it up. A list by label reads every object of its kind in the namespace from etcd: each "
        "server's look at the others' Leases reads those of all tasks, and when a server has died, each other one "
        "lists all pods. So these lists are answered from the API server's memory (`resourceVersion=0`), and what they "
        "lead to is a patch that tests what was seen. What is left is the pods' own cost, {pod:.0f} ms of processor "
        "for each, with what kubelet, scheduler and controllers ask for: give the API server more than {cores} "
        "processors, or begin evaluations one after the other. More servers do not help. Where it is used up, Leases "
        "are renewed late, and servers that live are taken for dead: leave room."
    ),
}
_INTRODUCTION = """# Many servers on a cluster: a simulation

`make bench-fleet` writes this page; do not edit it. {tasks} tasks of four calls each on the average, on {servers}
servers of 64 places and {nodes} nodes of 110 pods, by seed {seed}. Nothing is started: time passes from event to event.
The decisions of the pool are the product's own code; how long each step takes, and what it costs the API server, was
measured on a real cluster (`bench/fleet/measured.py` has the source of each number). Servers share the tasks as
[kubernetes.md](kubernetes.md) says: a Lease for each task in use and for each server, renewed and looked at every 2 s,
calls that are handed on, and every principal's tasks on 8 servers. In each run a node is lost for five minutes, a
server dies, and the API server is away for 6.6 s.

Times are those beyond the command's own. "Lost" counts answers that say that the node was lost, "no room" those that
found no place within `acquire_timeout`; their clients ask again, and every task ends. Requests are those of the API
server in its busiest ten seconds. "Renewal" is the longest time between two renewals of a living server's Lease, with
the API server away in between: after ten seconds, others would take it for dead."""
_SHARES = """What share of its capacity each resource used in its busiest ten seconds, and for how many seconds it was
used up: the first bottleneck is what was so the longest. For places and bounds it is what was wanted at once, which may
be more than there are, also because sandboxes take long that wait for something else. Kubernetes' own scripts choose
{cores} processors for the API server and etcd of up to 100 nodes, and twice as many for up to 250. What a request costs
was measured on a machine that was busy with other work, so that an idle one needs less."""
_WATCH = (
    "Watching would be dearer than looking: a pod's life is {events} events, and if each of {servers} servers watched "
    "all pods, the API server would send {worst:,.0f} events a second in the busiest ten seconds."
)
_FAULTS = (
    "The tasks of the server that died had another one after {least:.1f} to {adopted:.1f} s: its Lease runs out after "
    "ten seconds, by each server's own looks, and later where the API server is used up. A call was handed on "
    "{hops:.2f} times on the average: the Service gives it to any server."
)
_ASSUMED = """Not simulated: pulls of images, the processor time of nodes, output, rolling upgrades, options with which
tasks are opened, and clients that cancel. Of two servers that both want a task, the Lease gives it to one, in the model
as on the cluster."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One pattern of arrivals on one plan."""

    name: str
    plan: Plan
    evaluates: bool = False


SCENARIOS = (
    Scenario("two hours of teams, an API server of 4 processors", Plan(api_cores=measured.API_CORES)),
    Scenario("the same, 8 processors, as in all that follow", Plan()),
    Scenario("the same, lists read from etcd", Plan(lists_from_memory=False)),
    Scenario("evaluations, each on one server", Plan(spread=1), evaluates=True),
    Scenario("the same, each spread over 8 servers", Plan(), evaluates=True),
    Scenario("the same, the emptiest node gets each pod", Plan(spreads_begun=False), evaluates=True),
    Scenario("the teams' tasks in one hour", Plan(lasts=RUSH)),
    Scenario("the same, a scheduler of 200 pods/s", Plan(lasts=RUSH, binds=200.0)),
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
    used_up: dict[str, float]
    adopted: tuple[float, float]
    longest_renewal: float
    binds: float
    requests: float
    watched_by_all: float


def run(scenario: Scenario, *, servers: int, tasks: int, seed: int) -> Result:
    """Run one scenario with as many servers, and as many nodes."""
    scenario = replace(scenario, plan=replace(scenario.plan, servers=servers, nodes=servers))
    fleet = Fleet(scenario.plan, seed)
    fleet.run(arrivals(fleet, scenario, tasks))
    found = fleet.found
    return Result(
        scenario.name,
        fleet.clock.now,
        dict(found.tasks),
        dict(found.answers),
        (percentile(found.first, 50), percentile(found.first, 99)),
        (percentile(found.later, 50), percentile(found.later, 99)),
        found.hops / found.calls,
        fleet.cluster.created,
        fleet.cluster.most_objects,
        fleet.peaks,
        fleet.used_up,
        (min(fleet.adopted, default=math.nan), max(fleet.adopted, default=0.0)),
        fleet.longest_renewal,
        fleet.binds,
        fleet.requests,
        fleet.binds * measured.EVENTS_OF_A_POD * scenario.plan.servers,
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
    lines = [*_INTRODUCTION.format(tasks=f"{tasks:,}", seed=seed, servers=servers, nodes=servers).splitlines()]
    lines += [
        "",
        "| run | first answer, p50 / p99 | later ones | lost | no room | most pods | binds/s | requests/s | renewal |",
    ]
    lines += ["| --- |" + " --- |" * 8, *map(_row, results)]
    lines += ["", *_SHARES.format(cores=measured.API_CORES).splitlines()]
    lines += ["", f"| run | {' | '.join(REMEDIES)} | first bottleneck |"]
    lines += ["| --- |" + " --- |" * (len(REMEDIES) + 1), *map(_shares, results), ""]
    found = {bottleneck(result): None for result in results}
    if any(result.used_up[PRINCIPAL] for result in results):
        found[PRINCIPAL] = None
    values = {"pod": (measured.POD_BEGINS + measured.POD_ENDS) * 1000, "cores": measured.API_CORES}
    for resource in filter(None, found):
        text = REMEDIES[resource].format(**values)
        lines += [*textwrap.wrap(f"**{resource[:1].upper()}{resource[1:]}.** {text}", WIDTH), ""]
    worst = max(result.watched_by_all for result in results)
    lines += textwrap.wrap(_WATCH.format(events=measured.EVENTS_OF_A_POD, servers=servers, worst=worst), WIDTH)
    lines += ["", *textwrap.wrap(_faults(results), WIDTH)]
    return "\n".join([*lines, "", *_ASSUMED.splitlines(), ""])


def _faults(results: Collection[Result]) -> str:
    adopted = [one.adopted for one in results if one.adopted[1]]
    return _FAULTS.format(
        least=min((one[0] for one in adopted), default=0.0),
        adopted=max((one[1] for one in adopted), default=0.0),
        hops=max(one.hops for one in results),
    )


def bottleneck(result: Result) -> str:
    """The resource that was used up for the longest time: one that all share, before a principal's own bound."""
    used_up = [name for name, seconds in result.used_up.items() if seconds]
    return max(used_up, key=lambda name: (name != PRINCIPAL, result.used_up[name]), default="")


def _row(result: Result) -> str:
    ended, given_up = result.tasks.get("done", 0), result.tasks.get("given up", 0)
    assert ended + given_up == sum(result.tasks.values())
    first, later = (" / ".join(_seconds(value) for value in pair) for pair in (result.first, result.later))
    lost, refused = result.answers.get("lost", 0), result.answers.get("no room", 0)
    counts = f"{lost} | {refused} | {result.most_pods} | {result.binds:.0f} | {result.requests:,.0f}"
    counts += f" | {_seconds(result.longest_renewal)}"
    return f"| {result.name} | {first} | {later} | {counts} |"


def _shares(result: Result) -> str:
    shares = " | ".join(
        f"{result.peaks[name]:.0%}" + (f", {result.used_up[name]:,.0f} s" if result.used_up[name] else "")
        for name in REMEDIES
    )
    return f"| {result.name} | {shares} | {bottleneck(result) or 'none'} |"


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"
