"""What an engine could not start or remove when it was asked to: asked for again, and never in the way of an answer."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import anyio
import docker
import pytest
from structlog.testing import capture_logs

from gateways import GatewayFactory
from held_engine import HeldEngine
from observe import HOST_TIMEOUT, containers, eventually, marker
from taskcell.engine.base import Container, ListedContainer
from taskcell.engine.docker.engine import START_TIMEOUT
from taskcell.errors import EngineError, EngineUnavailable, ImageMissing, SandboxLost
from taskcell.gateway.gateway import Gateway
from taskcell.model import ProcessResult, ToolCall
from taskcell.pool import leftovers
from taskcell.pool.closing import CLOSE_TIMEOUT
from taskcell.pool.launcher import UNDO_TIMEOUT
from taskcell.pool.leftovers import LIST_TIMEOUT, Leftovers
from taskcell.pool.pool import CREATION_PATIENCE

pytestmark = pytest.mark.anyio

#: Seconds beyond a bound that a busy machine may take.
SLACK = 10.0


# --- what is remembered


class Stubborn:
    """The listing and the removal of an engine, which refuses to remove what is in `stuck`."""

    def __init__(self) -> None:
        self.there: dict[str, str] = {}
        self.stuck: set[str] = set()
        self.asked: list[str] = []

    async def containers(self, deployment: str) -> Sequence[ListedContainer]:
        return [ListedContainer(id_, name, {}, "created", 1.0) for name, id_ in self.there.items()]

    async def stop(self, container_id: str) -> None:
        self.asked.append(container_id)
        if container_id in self.stuck:
            raise EngineError("It cannot be removed.")
        self.there = {name: id_ for name, id_ in self.there.items() if id_ != container_id}


def made() -> tuple[Stubborn, Leftovers]:
    engine = Stubborn()
    return engine, Leftovers(engine, "deployment")  # type: ignore[arg-type]


async def test_the_container_of_a_failed_start_is_removed_when_it_appears() -> None:
    engine, left = made()
    left.add_start("name", "image", EngineUnavailable("It does not answer."))
    await left.remove()
    assert (engine.asked, left.any, left.names) == ([], True, [])
    engine.there["name"] = "id"
    await left.remove()
    assert (engine.asked, engine.there, left.any) == (["id"], {}, False)


async def test_what_cannot_be_removed_is_asked_for_again_and_named_until_it_is_gone() -> None:
    engine, left = made()
    engine.there, engine.stuck = {"one": "1", "two": "2"}, {"1"}
    for name, id_ in engine.there.items():
        left.add_removal(Container(id_, name, "", "", "", None), "it was in use")
    await left.remove()
    assert (engine.there, left.names) == ({"one": "1"}, ["one"])
    assert not left.is_due(time.monotonic())
    assert left.is_due(time.monotonic() + leftovers.ASK_EVERY)
    engine.stuck.clear()
    await left.remove()
    assert (engine.there, left.any) == ({}, False)


async def test_no_image_is_started_again_while_the_engine_can_neither_start_nor_remove_it() -> None:
    engine, left = made()
    engine.there, engine.stuck = {"hangs": "1", "other": "2"}, {"1", "2"}
    left.add_start("hangs", "hostile", EngineUnavailable("It does not answer."))
    left.add_start("other", "good", EngineError("It was refused."))
    with pytest.raises(EngineError, match="holds a container of the image hostile that it can neither start nor"):
        await left.check("hostile")
    await left.check("good")
    await left.check("another")
    engine.stuck.clear()
    await left.check("hostile")
    assert "hangs" not in engine.there


async def test_what_never_appears_is_forgotten_after_a_while() -> None:
    _, left = made()
    left.add_start("name", "image", EngineUnavailable("It does not answer."))
    left._left["name"].since -= leftovers.MAY_APPEAR + 1
    await left.remove()
    assert not left.any


# --- an engine that hangs


class Held:
    """A gateway's configuration over an engine that can be held, and what that engine has of its deployment."""

    def __init__(self, api: docker.APIClient) -> None:
        self.engine = HeldEngine()
        self.name = f"held-{marker()[:9]}"
        self.toml = f'deployment = "{self.name}"\n'
        self._api = api

    @property
    def ids(self) -> list[str]:
        return containers(self._api, taskcell__deployment=self.name)

    def remove(self) -> None:
        self.engine.close()
        for container in self.ids:
            self._api.remove_container(container, force=True)


@pytest.fixture
def held(docker_api: docker.APIClient) -> Iterator[Held]:
    made = Held(docker_api)
    try:
        yield made
    finally:
        made.remove()


async def terminal(gw: Gateway, command: str, task: str = "t") -> ProcessResult:
    return await gw.call(ToolCall("local", "terminal", {"command": command, "task_id": task}))


@pytest.mark.engine
@pytest.mark.faults
async def test_a_start_that_never_ends_is_answered_in_time_and_what_it_leaves_is_removed_when_that_can_be(
    gateway: GatewayFactory, held: Held
) -> None:
    async with gateway(held.toml, host=held.engine.host) as gw:
        await terminal(gw, "true", "other")
        (other,) = held.ids
        # The engine makes the container and says nothing; then it does not remove it either.
        held.engine.hold("POST .*/containers/create.*name=taskcell-[^ws]", answer_only=True)
        held.engine.hold("DELETE .*/containers/")
        with anyio.fail_after(START_TIMEOUT + SLACK):
            with pytest.raises(EngineUnavailable, match=r"within 45 s\. .*the image taskcell/base:latest cannot be"):
                await terminal(gw, "true")
        assert len(held.ids) == 2
        for _ in range(2):
            with anyio.fail_after(LIST_TIMEOUT + SLACK):
                with pytest.raises(EngineError, match="can neither start nor remove, so no other is started"):
                    await terminal(gw, "true")
        assert held.engine.seen("POST .*/containers/create.*name=taskcell-[^ws]") == 2
        assert (await terminal(gw, "echo works", "other")).stdout == "works\n"
        held.engine.release()
        assert await anyio.to_thread.run_sync(eventually, lambda: held.ids == [other])
        assert (await terminal(gw, "echo works")).stdout == "works\n"
    assert held.ids == []


@pytest.mark.engine
async def test_a_server_ends_in_time_while_a_start_hangs_and_the_next_one_removes_what_it_left(
    gateway: GatewayFactory, held: Held, tmp_path: Path
) -> None:
    refused: list[BaseException] = []

    async def call(gw: Gateway) -> None:
        with pytest.raises(SandboxLost) as error:
            await terminal(gw, "true")
        refused.append(error.value)

    with capture_logs() as logs:
        async with anyio.create_task_group() as calls:
            async with gateway(held.toml, host=held.engine.host, state=tmp_path / "state") as gw:
                held.engine.hold("POST .*/containers/create.*name=taskcell-[^ws]", answer_only=True)
                calls.start_soon(call, gw)
                assert await anyio.to_thread.run_sync(eventually, lambda: len(held.ids) == 1)
                begun = time.monotonic()
            assert time.monotonic() - begun < CLOSE_TIMEOUT + UNDO_TIMEOUT + HOST_TIMEOUT
    assert "The server is closing" in str(refused[0])
    (said,) = [line for line in logs if "not every sandbox" in line["event"]]
    assert said["names"] == ["(one for terminal, still being made)"]
    assert any("what a failed start has left" in line["event"] for line in logs)
    held.engine.release()
    async with gateway(held.toml, host=held.engine.host, state=tmp_path / "state") as gw:
        assert (await terminal(gw, "echo works")).stdout == "works\n"
        assert await anyio.to_thread.run_sync(eventually, lambda: len(held.ids) == 1)
    assert held.ids == []


@pytest.mark.engine
@pytest.mark.faults
async def test_a_pull_that_takes_too_long_is_answered_in_time_and_goes_on(gateway: GatewayFactory, held: Held) -> None:
    toml = f'{held.toml}[terminal]\nimage = "localhost:9/nothing:latest"\n'
    async with gateway(toml, host=held.engine.host) as gw:
        held.engine.hold("POST .*/images/create")
        with anyio.fail_after(CREATION_PATIENCE + SLACK):
            with pytest.raises(EngineError, match=r"not ready after 90 s.* or pulling its image, and goes on"):
                await terminal(gw, "true")
        held.engine.release()
        with pytest.raises(ImageMissing, match="could not be pulled"):
            await terminal(gw, "true")


@pytest.mark.engine
@pytest.mark.parametrize(
    "request_of", ["POST .*/containers/create.*name=taskcell-[^ws]", "POST .*/containers/.*/start"]
)
async def test_a_sandbox_starts_though_the_last_one_with_its_tasks_files_goes_meanwhile(
    gateway: GatewayFactory, held: Held, docker_api: docker.APIClient, request_of: str
) -> None:
    async with gateway(held.toml, host=held.engine.host) as gw:
        await terminal(gw, "echo kept > file")
        (first,) = held.ids
        before = held.engine.seen(request_of)
        async with anyio.create_task_group() as calls:
            held.engine.hold(request_of)
            calls.start_soon(gw.call, ToolCall("local", "sandbox", {"action": "reset", "task_id": "t"}))
            assert await anyio.to_thread.run_sync(eventually, lambda: held.engine.seen(request_of) > before)
            docker_api.remove_container(first, force=True, v=True)
            held.engine.release()
        result = await terminal(gw, "cat file; echo works")
        assert result.stdout.endswith("works\n")
        assert result.stdout.startswith("cat: file: No such file")
