"""What happens on a cluster between two requests of a server, and while the API is slow."""

from __future__ import annotations

import anyio
import pytest

from deployments import OnCluster, claims_of, tasks
from http_serving import PATIENCE
from taskcell.deployment.cluster import deployment as of_cluster
from taskcell.deployment.opened import Opening
from taskcell.engine.kubernetes.api import JSON_PATCH
from taskcell.errors import TaskcellError

pytestmark = pytest.mark.anyio

(TASK,) = tasks("t")
OPENING = Opening(labels={"a": "b"})


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


async def test_a_task_that_is_called_while_it_is_given_up_stays_this_servers(cluster: OnCluster) -> None:
    one, two = await cluster.join("a"), await cluster.join("b")
    await claims_of(one).claim(TASK, is_sent=True)
    held = cluster.server.held["DELETE leases"] = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(claims_of(one).release, [TASK])
        await asked(cluster, "DELETE leases", 1)
        assert (await claims_of(one).claim(TASK, is_sent=True)).door is None
        held.set()
    found = await claims_of(two).claim(TASK, is_sent=True)
    assert (found.door, claims_of(one).own) == (two.members.peer("a"), {TASK})


# --- who lives -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["begin_to_leave", "hand_over"])
async def test_a_renewal_under_way_undoes_no_word_of_a_server_that_ends(cluster: OnCluster, step: str) -> None:
    one, two = await cluster.join("a"), await cluster.join("b")
    held = cluster.server.held["PATCH leases"] = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(one.renew)
        await asked(cluster, "PATCH leases", 1)
        group.start_soon(getattr(one, step))
        await anyio.wait_all_tasks_blocked()
        held.set()
    await two.members.look()
    await one.renew()
    await two.members.look()
    assert (two.members.is_alive("a"), one.members.life) == (step == "begin_to_leave", 0)
    assert list(two.members.able()) == ["b"]


async def test_a_server_that_was_declared_dead_and_then_begins_to_end_still_learns_it(cluster: OnCluster) -> None:
    one, two = await cluster.join("a"), await cluster.join("b")
    await claims_of(one).claim(TASK, is_sent=True)
    assert await two.members.declare_dead("a")
    assert await claims_of(two).seize(TASK, "a")
    await one.begin_to_leave()
    await one.renew()
    assert claims_of(one).own == set()


async def test_nothing_is_sure_while_a_server_comes_back_that_was_declared_dead(cluster: OnCluster) -> None:
    one, two = await cluster.join("a"), await cluster.join("b")
    assert await two.members.declare_dead("a")
    await two.members.remove("a")
    cluster.server.failing.add("POST leases")
    with pytest.raises(TaskcellError, match="failing"):
        await one.renew()
    assert not one.is_current
    cluster.server.failing.clear()
    await one.renew()
    assert one.is_current


async def test_a_lease_that_was_renewed_unseen_is_not_judged_by_a_list_from_memory(cluster: OnCluster) -> None:
    one, two = await cluster.join("a"), await cluster.join("b")
    await cluster.kill(one)
    seen = two.members._seen["a"]
    await one.renew()
    cluster.server.failing.add("GET leases")  # fails a list, and what follows from it
    with pytest.raises(TaskcellError):
        await two.members.declare_dead("a")
    cluster.server.failing.clear()
    two.members._seen["a"] = seen
    lists = len(cluster.server.selectors)
    assert not await two.members.declare_dead("a")
    assert (len(cluster.server.selectors), two.members.is_alive("a")) == (lists, True)


async def test_a_list_that_was_asked_for_before_a_server_ended_does_not_bring_it_back(cluster: OnCluster) -> None:
    one, two = await cluster.join("a"), await cluster.join("b")
    written = await cluster.sandbox(one, "t")
    await claims_of(one).claim(written.key, is_sent=True)
    await one.write([written])
    old = dict(two.members._seen)
    await one.hand_over()
    await two.members.look()
    assert (await claims_of(two).claim(written.key, is_sent=True)).dead == "a"
    for name, seen in old.items():
        two.members._see(name, seen)
    assert [left.sandboxes async for left in two.bequeathed(["a"])] == [(written,)]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("/spec/holderIdentity", "b"),
        ("/spec", {}),
        ("/metadata/annotations/taskcell.dev~1address", "http://[:"),
        ("/metadata/annotations/taskcell.dev~1address", "http://a:99999"),
        ("/metadata/annotations", {}),
    ],
)
async def test_a_lease_that_no_server_has_written_is_no_server(cluster: OnCluster, path: str, value: object) -> None:
    one = await cluster.join("a")
    name = one.members._name("x")
    labels = {f"taskcell.dev/{key}": word for key, word in (("deployment", "test"), ("role", "server"))}
    meta = {"name": name, "labels": labels, "annotations": {"taskcell.dev/address": "http://x.test:1"}}
    body = {"metadata": meta, "spec": {"holderIdentity": "x", "renewTime": ""}}
    api = cluster.apis[0]
    leases = api.path("leases", group="coordination.k8s.io/v1")
    await api.call("POST", leases, body)
    await one.members.look()
    assert set(one.members.names()) == {"a", "x"}
    await api.call("PATCH", f"{leases}/{name}", [{"op": "add", "path": path, "value": value}], JSON_PATCH)
    await one.members.look()
    assert set(one.members.names()) == {"a"}


async def test_a_task_that_is_claimed_while_claims_are_looked_at_is_not_lost(cluster: OnCluster) -> None:
    one = await cluster.join("a")
    held = cluster.server.held["GET leases"] = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(claims_of(one).check)
        await asked(cluster, "GET leases", 1)
        assert (await claims_of(one).claim(TASK, is_sent=True)).door is None
        held.set()
    assert claims_of(one).own == {TASK}
