"""The client for programs: many forks of one task at once, on the local engine, and forks of a task with an image."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import anyio
import docker
import pytest

from client_serving import served
from gateways import GatewayFactory
from taskcell.client.failures import ArgumentError, NotFoundError

pytestmark = pytest.mark.anyio

FORKS = 50
#: As many places as forks; and far fewer, so that forks take turns, and those without a call make room.
ROOMY = 'manifests = []\n[engine]\nkind = "local"\n[pool]\nmax_sandboxes = 64\nmax_per_principal = 64\n'
NARROW = ROOMY.replace("64", "8") + 'acquire_timeout = "10m"\n'


@pytest.mark.faults
@pytest.mark.parametrize("toml", [pytest.param(ROOMY, id="roomy"), pytest.param(NARROW, id="narrow")])
async def test_fifty_forks_of_one_task_at_once_are_all_made_and_whole(
    gateway: GatewayFactory, tmp_path: Path, toml: str
) -> None:
    async with served(gateway, tmp_path / "state", toml) as cell:
        task = await cell.open("source")
        await task.run("mkdir -p deep; head -c 300000 /dev/urandom >deep/file; sha256sum deep/file >sum")
        whole: list[str] = []

        async def fork(name: str) -> None:
            made = await task.fork(name)
            (await made.run(f"sha256sum -c sum && echo {name} >own")).check()
            assert await made.read_bytes("own") == f"{name}\n".encode()
            whole.append(name)

        async with anyio.create_task_group() as forking:
            for number in range(FORKS):
                forking.start_soon(fork, f"fork {number}")
        assert len(whole) == FORKS
        with pytest.raises(NotFoundError):
            await task.read_bytes("own")


async def test_of_two_forks_to_one_name_one_is_made(gateway: GatewayFactory, tmp_path: Path) -> None:
    async with served(gateway, tmp_path / "state", ROOMY) as cell:
        task = await cell.open("source")
        await task.write_bytes("file", b"x")
        outcomes: list[str] = []

        async def fork() -> None:
            try:
                await task.fork("same")
                outcomes.append("made")
            except ArgumentError as error:
                outcomes.append(str(error).partition(":")[0])

        async with anyio.create_task_group() as forking:
            for _ in range(5):
                forking.start_soon(fork)
        assert sorted(outcomes) == [*["The task 'same' exists already"] * 4, "made"]
        assert await cell.task("same").read_bytes("file") == b"x"


@pytest.fixture
def image(docker_api: docker.APIClient) -> Iterator[str]:
    """An image of a task's own: the default one with a variable."""
    made = docker_api.create_container("taskcell/base:latest", ["true"])["Id"]
    try:
        docker_api.commit(made, repository="taskcell-test/forked", tag="1", changes=["ENV FORKED=yes"])
        yield "taskcell-test/forked:1"
        docker_api.remove_image("taskcell-test/forked:1", force=True)
    finally:
        docker_api.remove_container(made, force=True)


@pytest.mark.engine
async def test_snapshots_and_forks_have_the_image_that_their_task_was_opened_with(
    gateway: GatewayFactory, tmp_path: Path, image: str
) -> None:
    toml = 'manifests = []\n[policy]\ntask_images = ["taskcell-test/*"]\n'
    async with served(gateway, tmp_path / "state", toml, engine="docker") as cell:
        task = await cell.open("one", image=image)
        (await task.run("echo one >file")).check()
        await task.snapshot("kept")
        fork = await task.fork("two")
        assert (await fork.run("cat file; echo $FORKED")).stdout == b"one\nyes\n"
        await task.run("echo changed >file; echo >more")
        await task.restore("kept")
        assert (await task.run("cat *; echo $FORKED")).stdout == b"one\nyes\n"
        again = await cell.open("three", image=image)
        await again.restore("kept")
        assert (await again.run("cat *; echo $FORKED")).stdout == b"one\nyes\n"
