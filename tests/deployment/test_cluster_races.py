"""What happens on a cluster between two requests of a server, and while the API is slow."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

from deployments import OnCluster, on_cluster, tasks
from http_serving import PATIENCE
from taskcell.deployment.cluster import deployment as of_cluster
from taskcell.deployment.cluster.deployment import ClusterDeployment
from taskcell.deployment.cluster.task_leases import TaskLeases
from taskcell.deployment.opened import Opening

pytestmark = pytest.mark.anyio

(TASK,) = tasks("t")
OPENING = Opening(labels={"a": "b"})


@pytest.fixture
async def cluster() -> AsyncIterator[OnCluster]:
    async with on_cluster() as made:
        yield made


def claims_of(server: ClusterDeployment) -> TaskLeases:
    assert server.claims is not None
    return server.claims


async def asked(cluster: OnCluster, what: str, more: int) -> None:
    """Wait until so many more requests of a kind have come."""
    least = cluster.server.requests[what] + more
    with anyio.fail_after(PATIENCE):
        while cluster.server.requests[what] < least:
            await anyio.sleep(0.01)


async def test_a_lease_is_renewed_while_the_api_does_not_answer_what_is_written_to_pods(
    cluster: OnCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_cluster, "RENEW_EVERY", 0.02)
    monkeypatch.setattr(of_cluster, "WRITE_EVERY", 0.02)
    monkeypatch.setattr(of_cluster, "ROUND_TIMEOUT", 0.5)
    one = await cluster.join("a")
    written = await cluster.sandbox(one, "t")
    cluster.server.failing.add("PATCH pods")
    await one.write([written])
    cluster.server.failing.clear()
    held = cluster.server.held["PATCH pods"] = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(one.run)
        await asked(cluster, "PATCH pods", 1)
        await asked(cluster, "PATCH leases", 5)
        await asked(cluster, "PATCH pods", 1)  # what is not answered is given up, and asked again
        held.set()
        await asked(cluster, "PATCH leases", 5)
        with anyio.fail_after(PATIENCE):
            while [found.sandboxes for found in await one.servers()] != [(written,)]:
                await anyio.sleep(0.01)
        await one.leave(keep=True)  # which ends it


async def test_a_task_that_is_closed_is_noted_twice_at_once_without_a_fault(cluster: OnCluster) -> None:
    one = await cluster.join("a")
    await claims_of(one).claim(TASK, is_sent=True)
    one.opened[TASK] = OPENING
    await claims_of(one).note_opened()
    del one.opened[TASK]
    held = cluster.server.held["PATCH leases"] = anyio.Event()
    async with anyio.create_task_group() as group:
        for _ in "12":
            group.start_soon(claims_of(one).note_opened)
        await asked(cluster, "PATCH leases", 1)
        held.set()
    await cluster.kill(one)
    heir = await cluster.join("b")
    await cluster.pass_time(20)
    assert [left async for left in heir.bequeathed()] == []
    assert heir.opened == {}
