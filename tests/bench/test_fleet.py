"""The simulation of many servers: nothing gets lost in it, and a seed gives one run."""

from __future__ import annotations

from random import Random

import pytest
from fleet import measured
from fleet.clock import Clock, Station
from fleet.cluster import Cluster, Pod, PodState
from fleet.fleet import Fleet, Plan
from fleet.report import Scenario, arrivals
from fleet.work import Task

from taskcell.model import TaskKey

SMALL = Plan(servers=6, nodes=4, places=8, lasts=120.0)
CROWDED = Plan(servers=2, nodes=2, places=2, lasts=120.0)
SPREAD = Plan(servers=6, nodes=4, places=8, lasts=120.0, spread=3)
#: Tasks of a run.
TASKS = 60


def ran(plan: Plan, seed: int = 1, tasks: int = TASKS, *, evaluates: bool = False) -> Fleet:
    fleet = Fleet(plan, seed)
    fleet.run(arrivals(fleet, Scenario("", plan, evaluates), tasks))
    return fleet


class TestConservation:
    @pytest.mark.parametrize("plan", [SMALL, CROWDED, SPREAD])
    @pytest.mark.parametrize("evaluates", [False, True])
    @pytest.mark.parametrize("seed", [1, 2])
    def test_every_task_and_every_call_ends_once_and_no_pod_is_left(
        self, plan: Plan, evaluates: bool, seed: int
    ) -> None:
        fleet = ran(plan, seed, evaluates=evaluates)
        found, cluster = fleet.found, fleet.cluster
        assert sum(found.tasks.values()) == TASKS
        answered = found.answers["ok"] + found.answers["lost"]
        assert answered == len(found.first) + len(found.later) == found.calls - found.tasks["given up"]
        assert not any(server.calls for server in fleet.servers.values())
        assert cluster.created == cluster.deleted
        assert not cluster.pods
        assert not cluster.by_task
        assert not any(node.pods for node in cluster.nodes)

    def test_no_node_ever_has_more_pods_than_it_may(self) -> None:
        fleet = Fleet(CROWDED, 1)
        most = 0

        def look() -> None:
            nonlocal most
            most = max(most, *(len(node.pods) for node in fleet.cluster.nodes))
            if fleet.is_working:
                fleet.clock.after(1.0, look)

        fleet.clock.after(0.0, look)
        fleet.run(arrivals(fleet, Scenario("", CROWDED), TASKS))
        assert 0 < most <= measured.PODS_PER_NODE

    def test_no_time_beyond_the_commands_own_is_negative(self) -> None:
        found = ran(SMALL).found
        assert min(found.first + found.later) > 0


def test_one_seed_gives_one_run_and_another_seed_another() -> None:
    def told(seed: int) -> tuple[object, ...]:
        fleet = ran(SMALL, seed)
        return fleet.clock.now, fleet.found, fleet.cluster.created, fleet.adopted

    assert told(3) == told(3)
    assert told(3) != told(4)


def test_the_tasks_of_a_server_that_dies_are_taken_up_within_fifteen_seconds_and_keep_their_pods() -> None:
    fleet = ran(SMALL, tasks=200)
    assert fleet.adopted
    assert max(fleet.adopted) < 15


def test_a_pod_that_several_servers_want_goes_to_one() -> None:
    clock, outcomes = Clock(), []
    cluster = Cluster(clock, Random(1), nodes=1, quota=10, binds=50)
    pod = Pod("dead", TaskKey("p", "t"))
    cluster.create(pod)
    clock.run()
    assert pod.state is PodState.RUNNING
    for name in ("a", "b", "c"):
        cluster.assign(pod, "dead", name, TaskKey("p", "t"), lambda wins, name=name: outcomes.append((name, wins)))
    clock.run()
    assert [wins for _, wins in outcomes].count(True) == 1
    assert (pod.owner, True) in outcomes


def test_the_quota_counts_pods_that_are_still_going() -> None:
    clock = Clock()
    cluster = Cluster(clock, Random(1), nodes=1, quota=1, binds=50)
    first, second = Pod("a"), Pod("a")
    cluster.create(first)
    clock.run()
    cluster.delete(first)
    cluster.create(second)
    clock.run()
    assert cluster.refused > 0
    assert (first.state, second.state) == (PodState.GONE, PodState.RUNNING)
    assert cluster.most_objects == 1


def test_a_principal_is_on_as_many_servers_as_its_tasks_are_spread_over() -> None:
    fleet = Fleet(Plan(spread=4), 1)
    owners = {fleet.owner(TaskKey("one", f"task {number}")) for number in range(200)}
    assert len(owners) == 4
    assert len({Fleet(Plan(spread=1), 1).owner(TaskKey("one", f"task {number}")) for number in range(20)}) == 1


def test_when_a_server_leaves_only_its_own_tasks_move() -> None:
    fleet = Fleet(SMALL, 1)
    keys = [TaskKey(f"p{number}", "t") for number in range(200)]
    before = {key: fleet.owner(key) for key in keys}
    gone = next(iter(fleet.servers))
    del fleet.servers[gone]
    fleet._generation += 1
    assert {key for key in keys if fleet.owner(key) != before[key]} == {key for key in keys if before[key] == gone}


def test_a_station_does_its_work_in_order_and_never_more_than_it_can() -> None:
    clock, done = Clock(), []
    station = Station(clock, 2)
    for number in range(6):
        station.serve(10.0, lambda number=number: done.append((clock.now, number)))
    clock.run()
    assert done == [(10, 0), (10, 1), (20, 2), (20, 3), (30, 4), (30, 5)]
    assert station.peak == 1.0
    assert station.longest_queue == 4


def test_a_task_that_finds_no_room_is_given_up_in_the_end_and_counted() -> None:
    fleet = Fleet(Plan(servers=1, nodes=1, lasts=1.0), 1)
    for node in fleet.cluster.nodes:
        node.lives = False
    fleet.run([(0.0, Task(TaskKey("p", "t"), 3, closes=True))], faults=False)
    assert fleet.found.tasks == {"given up": 1}
