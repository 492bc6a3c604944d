"""What every way to keep a deployment's state promises, for a folder of one machine and for a cluster alike."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from deployments import Deployments, InFolder, on_cluster, tasks
from taskcell.deployment.base import Claims, Deployment
from taskcell.deployment.key import token
from taskcell.deployment.records import NoteRecord, SandboxRecord

pytestmark = pytest.mark.anyio

(TASK,) = tasks("t")


@pytest.fixture(params=["folder", "cluster"])
async def deployments(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Deployments]:
    if request.param == "folder":
        yield InFolder(tmp_path / "state" / "deployment")
    else:
        async with on_cluster() as cluster:
            yield cluster


async def left_to(server: Deployment, *chosen: str) -> dict[str, tuple[SandboxRecord, ...]]:
    found = {}
    async for left in server.bequeathed(chosen or None):
        found[left.instance] = left.sandboxes
        await server.write([*left.sandboxes])
    return {name: sandboxes for name, sandboxes in found.items() if sandboxes}


def claims_of(server: Deployment) -> Claims:
    assert server.claims is not None
    return server.claims


async def test_servers_derive_the_same_tokens_and_other_ones_for_each_sandbox(deployments: Deployments) -> None:
    first, second = await deployments.join("a"), await deployments.join("b")
    assert token(first.key, "n") == token(second.key, "n") != token(first.key, "m")
    assert first.is_shared
    assert (first.instance, second.instance) == ("a", "b")


async def test_what_a_server_writes_is_what_others_read_of_it(deployments: Deployments) -> None:
    writer, reader = await deployments.join("a"), await deployments.join("b")
    first, second = await deployments.sandbox(writer, "t"), await deployments.sandbox(writer, "", 2)
    note = NoteRecord("local", "t\udcff", "terminal", "had died")
    await writer.write([first, second], [note])
    found = {server.instance: server for server in await reader.servers()}["a"]
    assert found.alive
    assert sorted(found.sandboxes, key=lambda one: one.container) == [first, second]
    assert found.notes == (note,)
    await writer.write([second])
    found = {server.instance: server for server in await reader.servers()}["a"]
    assert (found.sandboxes, found.notes) == ((second,), ())


async def test_a_living_servers_sandboxes_are_left_to_nobody(deployments: Deployments) -> None:
    living, other = await deployments.join("a"), await deployments.join("b")
    await living.write([await deployments.sandbox(living, "t")])
    assert list(await other.dead()) == []
    assert await left_to(other) == {}
    assert await left_to(other, "a") == {}


async def test_what_a_dead_server_left_is_taken_over_once(deployments: Deployments) -> None:
    dying = await deployments.join("a")
    written = await deployments.sandbox(dying, "t")
    note = NoteRecord("local", "t", "", "A sentence.")
    await dying.write([written], [note])
    heir = await deployments.join("b")
    await deployments.kill(dying)
    assert list(await heir.dead()) == ["a"]
    (found,) = [left async for left in heir.bequeathed()]
    assert (found.instance, found.alive, found.sandboxes, found.notes) == ("a", False, (written,), (note,))
    await heir.write([written], [note])
    assert await left_to(heir) == {}
    assert [one.sandboxes for one in await heir.servers() if one.instance == "b"] == [(written,)]


async def test_only_what_was_chosen_is_taken_over(deployments: Deployments) -> None:
    one, two = await deployments.join("a"), await deployments.join("b")
    of_one, of_two = await deployments.sandbox(one, "t"), await deployments.sandbox(two, "u")
    await one.write([of_one])
    await two.write([of_two])
    heir = await deployments.join("c")
    await deployments.kill(one)
    await deployments.kill(two)
    assert await left_to(heir, "b") == {"b": (of_two,)}
    assert await left_to(heir) == {"a": (of_one,)}


async def test_of_several_heirs_each_sandbox_has_one(deployments: Deployments) -> None:
    dying = await deployments.join("a")
    written = [await deployments.sandbox(dying, f"t{number}", number) for number in range(12)]
    await dying.write(written)
    heirs = [await deployments.join(name) for name in ("b", "c", "d")]
    await deployments.kill(dying)
    got: list[SandboxRecord] = []

    async def inherit(heir: Deployment) -> None:
        async for left in heir.bequeathed():
            got.extend(left.sandboxes)
            await heir.write(left.sandboxes)

    async with anyio.create_task_group() as inheriting:
        for heir in heirs:
            inheriting.start_soon(inherit, heir)
    assert sorted(one.task for one in got) == sorted(one.task for one in written)


async def test_a_server_that_leaves_with_nothing_leaves_nothing(deployments: Deployments) -> None:
    leaving, other = await deployments.join("a"), await deployments.join("b")
    await claims_of(leaving).claim(TASK, is_sent=True)
    await leaving.write([])
    await leaving.leave(keep=False)
    assert [server.instance for server in await other.servers() if server.instance != "b"] == []
    assert (await claims_of(other).claim(TASK, is_sent=True)).door is None


async def test_a_server_that_leaves_its_sandboxes_is_succeeded_at_once(deployments: Deployments) -> None:
    leaving, heir = await deployments.join("a"), await deployments.join("b")
    written = await deployments.sandbox(leaving, "t")
    await leaving.write([written])
    await leaving.leave(keep=True)
    assert list(await heir.dead()) == ["a"]
    assert await left_to(heir) == {"a": (written,)}


# --- claims ----------------------------------------------------------------------------------------------------------


async def test_a_task_is_one_servers_until_it_gives_it_up_or_ends(deployments: Deployments) -> None:
    first, second = await deployments.join("a"), await deployments.join("b")
    one, two = claims_of(first), claims_of(second)
    assert one.covers(TASK)
    assert (await one.claim(TASK, is_sent=True)).door is None
    assert one.own == {TASK}
    refused = await two.claim(TASK, is_sent=True)
    assert refused.door is not None
    assert refused.is_certain
    await one.release([TASK])
    assert (await two.claim(TASK, is_sent=True)).door is None
    assert (await one.claim(TASK, is_sent=True)).door is not None
    await second.write([])
    await deployments.kill(second)
    mine = await one.claim(TASK, is_sent=True)
    assert (mine.door, mine.dead) == (None, "b")


async def test_when_all_want_a_task_at_once_one_of_them_has_it(deployments: Deployments) -> None:
    servers = [await deployments.join(name) for name in "abcd"]
    async with anyio.create_task_group() as wanting:
        for server in servers:
            wanting.start_soon(lambda one: claims_of(one).claim(TASK, is_sent=True), server)
    assert [claims_of(server).own for server in servers].count({TASK}) == 1


async def test_a_server_gives_up_no_claim_of_another(deployments: Deployments) -> None:
    first, second = await deployments.join("a"), await deployments.join("b")
    one, two = claims_of(first), claims_of(second)
    await one.claim(TASK, is_sent=True)
    await two.release([TASK])
    await two.take([TASK])
    assert two.own == set()
    assert (await two.claim(TASK, is_sent=True)).door is not None


async def test_of_two_that_want_a_dead_servers_task_one_has_it(deployments: Deployments) -> None:
    dying, *others = [await deployments.join(name) for name in "abc"]
    await claims_of(dying).claim(TASK, is_sent=True)
    await deployments.kill(dying)
    async with anyio.create_task_group() as wanting:
        for server in others:
            wanting.start_soon(lambda one: claims_of(one).claim(TASK, is_sent=True), server)
    assert [claims_of(server).own for server in others].count({TASK}) == 1
