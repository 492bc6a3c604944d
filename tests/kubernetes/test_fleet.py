"""Many tasks of the client for programs at two servers of a real cluster, while what is below them fails."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest

import cluster
from cluster import CLUSTER_TIMEOUT, Program
from server_pods import FIRST_PORT, ServerPod, ServerPods, server_pods
from taskcell.client import connect
from taskcell.client.failures import CapacityError, EngineFailedError, LostError

pytestmark = [pytest.mark.anyio, pytest.mark.kubernetes]

#: Tasks; a run by hand may have more.
TASKS = int(os.environ.get("TASKCELL_TEST_FLEET", "16"))
#: Tasks that are looked at and closed at once: a principal may have 16 calls.
ENDS = 8
#: Seconds that the API server is away, and that all of this may take on a busy machine.
AWAY, LIMIT = 8.0, 900.0
POOL = "max_sandboxes = 128\nmax_per_principal = 128\n"


@dataclass
class Work:
    """What one task was asked to run, and what was said of it."""

    name: str
    answered: list[int] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)
    unknown: list[int] = field(default_factory=list)
    says: list[str] = field(default_factory=list)

    async def step(self, server: ServerPod, number: int) -> None:
        """Run one command; its answer is right, or says that it did not run, or that its end is not known."""
        async with connect(server.url, token=server.token) as cell:
            try:
                done = await cell.task(self.name).run(f"echo {number} >> ran; sleep 0.3; echo {self.name}-{number}")
            except (CapacityError, EngineFailedError) as error:
                self.refused.append(number)
                self.says.append(f"{type(error).__name__}: {error}")
            except LostError as error:
                self.unknown.append(number)
                self.says.append(f"{type(error).__name__}: {error}")
            else:
                assert (done.status, done.stdout) == ("exited", f"{self.name}-{number}\n".encode()), (done, done.stdout)
                self.answered.append(number)

    def check(self, ran: list[int]) -> None:
        """Hold what ran to what was said."""
        assert max(Counter(ran).values()) == 1, f"{self.name} ran something twice: {ran}"
        assert set(self.answered) <= set(ran), f"{self.name} lost files: {self.answered} {ran} {self.says}"
        assert not set(self.refused) & set(ran), f"{self.name} ran what was refused: {self.refused} {ran} {self.says}"
        assert set(ran) <= {*self.answered, *self.unknown}


async def test_a_fleet_of_tasks_goes_through_a_servers_death_and_the_absence_of_the_api_and_of_a_kubelet(
    tmp_path: Path,
) -> None:
    with anyio.fail_after(LIMIT):
        async with server_pods(tmp_path, "tc-fleet", POOL) as servers:
            async with anyio.create_task_group() as starts:
                starts.start_soon(servers.start, "one", 1, FIRST_PORT)
                starts.start_soon(servers.start, "two", 2, FIRST_PORT + 1)
            works = [Work(f"f{number}") for number in range(TASKS)]
            await faults_while(servers, works)
            await ended(servers, works)
            said = Counter(line for work in works for line in work.says)  # pytest shows it where a test fails
            print(*said.items(), f"{sum(len(work.answered) for work in works)} right answers", sep="\n")
            await nothing_is_left(servers)


async def faults_while(servers: ServerPods, works: list[Work]) -> None:
    is_over = anyio.Event()
    alive = dict(servers.servers)

    async def client(number: int, work: Work) -> None:
        step = 0
        while not is_over.is_set() or len(work.answered) < 3:
            step += 1
            names = sorted(alive)
            await work.step(alive[names[(number + step) % len(names)]], step)
            await anyio.sleep(0.2 if work.says else 0)

    async def each(more: int) -> None:
        """Until every task has had so many answers more."""
        before = {work.name: len(work.answered) for work in works}
        await until(lambda: all(len(work.answered) >= before[work.name] + more for work in works))

    async with anyio.create_task_group() as clients:
        for number, work in enumerate(works):
            clients.start_soon(client, number, work)
        await each(1)
        servers.servers["one"].signal(signal.SIGKILL)
        del alive["one"]
        await each(1)
        program = Program("apiserver")
        program.kill()
        try:
            await anyio.sleep(AWAY)
        finally:
            program.start()
        await each(1)
        cluster.restart_kubelet(1)
        cluster.restart_kubelet(2)
        await each(2)
        is_over.set()


async def ended(servers: ServerPods, works: list[Work]) -> None:
    """Every task's file says what ran; then it is closed."""
    two, places = servers.servers["two"], anyio.CapacityLimiter(ENDS)
    async with connect(two.url, token=two.token) as cell, anyio.create_task_group() as ends:

        async def end(work: Work) -> None:
            async with places:
                ran = (await cell.task(work.name).run("cat ran")).stdout
                work.check([int(word) for word in ran.split()])
                await cell.task(work.name).close()

        for work in works:
            ends.start_soon(end, work)


async def nothing_is_left(servers: ServerPods) -> None:
    """No pod of a sandbox, no Lease but the living server's, no Secret or ConfigMap beyond the shared ones."""
    admin = servers.admin

    async def left() -> list[str]:
        found = [one["metadata"]["name"] for one in (await admin.call("GET", admin.path("pods")))["items"]]
        found += [one["metadata"]["name"] for role in ("task", "server") for one in await servers.leases(role)]
        return found

    with anyio.fail_after(2 * CLUSTER_TIMEOUT):
        while len(found := await left()) != 3:
            await anyio.sleep(0.5)
    found = [
        one["metadata"]["name"]
        for kind in ("secrets", "configmaps", "persistentvolumeclaims")
        for one in (await admin.call("GET", admin.path(kind)))["items"]
        if one["metadata"]["name"].startswith("taskcell-") and "-token-" not in one["metadata"]["name"]
    ]
    assert sorted(name.split("-")[1] for name in found) == ["8e3dc1afbc", "supervisor"], found


async def until(is_so: Callable[[], Any]) -> None:
    while not is_so():
        await anyio.sleep(0.1)
