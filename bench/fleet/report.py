"""The runs that are compared, and the page of their figures."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from fleet import measured
from fleet.fleet import Fleet, Plan
from fleet.work import Task

HOUR, RUSH = 3600.0, 1200.0
#: Evaluations, tasks of each that run at once, and seconds within which they begin.
EVALUATIONS, AT_ONCE, WITHIN = 100, 40, 600.0


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
    watched_by_all: float


def run(scenario: Scenario, *, tasks: int, seed: int) -> Result:
    """Run one scenario."""
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
        creations * measured.EVENTS_OF_A_POD * scenario.plan.servers,
    )


def arrivals(fleet: Fleet, scenario: Scenario, tasks: int) -> Iterable[tuple[float, Task]]:
    """The tasks of a scenario with the times at which they begin."""
    if scenario.evaluates:
        return fleet.work.evaluations(min(EVALUATIONS, tasks), tasks, AT_ONCE, WITHIN)
    return fleet.work.spread_over(scenario.plan.lasts, tasks)


def percentile(values: Collection[float], percent: float) -> float:
    """The value that so many percent do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)] if ordered else 0.0


def page(results: Collection[Result], tasks: int, seed: int) -> str:
    """The page."""
    lines = [f"{tasks} {seed}", *map(repr, results)]
    return "\n".join(lines)
