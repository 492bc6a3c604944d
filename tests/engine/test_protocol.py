"""What the pool asks of an engine, asked of each directly: `test_contract.py` holds what calls see of it."""

from __future__ import annotations

import io
import os
import secrets
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio
import pytest

from observe import HOST_TIMEOUT
from pool_slots import POLICY
from taskcell.config.settings import Settings
from taskcell.engine.base import Container, ContainerSpec, Engine, Standing, Workspace
from taskcell.engine.docker.engine import DockerEngine
from taskcell.engine.kubernetes.api import Api
from taskcell.engine.kubernetes.engine import KubernetesEngine
from taskcell.engine.kubernetes.kubeconfig import find_cluster
from taskcell.engine.local import LocalEngine
from taskcell.errors import EngineError, SandboxLost
from taskcell.profile.build import terminal_profile

pytestmark = pytest.mark.anyio

PROFILE = POLICY.authorize_profile(terminal_profile(Settings()))
#: Seconds for what a cluster does at once when its machine is calm.
LIMIT = 6 * HOST_TIMEOUT
#: What no engine has.
NOTHING = {"docker": "0" * 64, "local": "none", "kubernetes": "none/00000000-0000-0000-0000-000000000000/c-none/0"}


class Started:
    """An engine, and what a test has started on it."""

    def __init__(self, kind: str, engine: Engine) -> None:
        self.kind, self.engine, self.deployment = kind, engine, f"protocol-{secrets.token_hex(4)}"
        self.containers: list[Container] = []

    async def start(self) -> Container:
        labels = {"taskcell": "1", "taskcell.deployment": self.deployment, "taskcell.instance": "i-1"}
        labels["taskcell.profile"] = PROFILE.name
        name = f"taskcell-warm-terminal-{secrets.token_hex(4)}"
        spec = ContainerSpec(PROFILE, name, Workspace(8 << 20), labels, 60.0, allow_unenforced=frozenset({"pids"}))
        made = await self.engine.start(spec)
        self.containers.append(made)
        return made


@asynccontextmanager
async def opened(kind: str) -> AsyncIterator[Started]:
    engine: Engine
    if kind == "docker":
        engine = await DockerEngine.open("", {})
    elif kind == "local":
        engine = LocalEngine()
    else:
        engine = KubernetesEngine(Api(lambda: find_cluster({}, os.environ["TASKCELL_TEST_KUBECONFIG"])))
    made = Started(kind, engine)
    try:
        with anyio.fail_after(LIMIT):
            yield made
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(LIMIT):
            for one in made.containers:
                with suppress(EngineError):
                    await engine.remove(one)
            await engine.sweep_own("i-1")
            await engine.aclose()


@pytest.fixture(
    params=[
        "local",
        pytest.param("docker", marks=pytest.mark.engine),
        pytest.param("kubernetes", marks=pytest.mark.kubernetes),
    ]
)
async def on(request: pytest.FixtureRequest) -> AsyncIterator[Started]:
    async with opened(request.param) as made:
        yield made


async def connect_to_the_end(on: Started, container: Container) -> None:
    """A pod that is about to go still has its processes."""
    with anyio.fail_after(LIMIT):
        while True:
            async with on.engine.connect(container):
                await anyio.sleep(0.1)


def archive(**files: bytes) -> io.BytesIO:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    made.seek(0)
    return made


async def files_of(on: Started, container: Container) -> dict[str, bytes]:
    saved = io.BytesIO()
    await on.engine.save_files(container, saved, 1 << 20)
    saved.seek(0)
    with tarfile.open(fileobj=saved) as tar:
        found = {entry.name.removeprefix("./"): tar.extractfile(entry) for entry in tar if entry.isfile()}
        return {name: stream.read() for name, stream in found.items() if stream is not None}


async def test_a_container_runs_with_its_supervisor_until_it_is_removed(on: Started) -> None:
    container = await on.start()
    assert container.is_fresh
    assert await on.engine.standing(container) is Standing.RUNS
    assert isinstance(await on.engine.why_dead(container), str)
    async with on.engine.connect(container):
        pass
    await on.engine.remove(container)
    with anyio.fail_after(LIMIT):
        while await on.engine.standing(container) is not Standing.ENDED:
            await anyio.sleep(0.05)
    await on.engine.remove(container)
    await on.engine.stop(container.id)
    assert isinstance(await on.engine.why_dead(container), str)
    with pytest.raises(SandboxLost):
        await connect_to_the_end(on, container)


async def test_one_that_was_made_for_no_task_is_assigned_to_one(on: Started) -> None:
    container = await on.start()
    assigned = await on.engine.assign(container, "taskcell-0123-terminal-4567")
    assert (assigned.id, assigned.name) == (container.id, "taskcell-0123-terminal-4567")
    assert not assigned.is_contended
    on.containers[:] = [assigned]
    if on.kind == "local":  # its sandboxes are its server's, so that no other lists or finds them
        assert list(await on.engine.containers(on.deployment)) == []
        assert await on.engine.find(container.id, PROFILE) is None
        return
    (listed,) = await on.engine.containers(on.deployment)
    assert (listed.id, listed.name, listed.state) == (container.id, assigned.name, "running")
    assert listed.labels["taskcell.instance"] == "i-1"
    found = await on.engine.find(container.id, PROFILE)
    assert found is not None
    assert (found.name, found.volume, found.is_fresh) == (assigned.name, container.volume, False)


async def test_files_go_out_in_and_from_one_to_others(on: Started) -> None:
    first, second = await on.start(), await on.start()
    await on.engine.put_files(first, archive(a=b"1", b=b"x" * 100_000))
    assert await files_of(on, first) == {"a": b"1", "b": b"x" * 100_000}
    assert list(await on.engine.copy_files(first, [second], "")) == [""]
    assert await files_of(on, second) == await files_of(on, first)
    with pytest.raises(EngineError, match="too much room"):
        await on.engine.save_files(first, io.BytesIO(), 50_000)


async def test_what_is_not_there_is_removed_already(on: Started) -> None:
    await on.engine.stop(NOTHING[on.kind])
    await on.engine.remove_workspace(NOTHING[on.kind])
    assert await on.engine.find(NOTHING[on.kind], PROFILE) is None
    assert list(await on.engine.containers(on.deployment)) == []
    await on.engine.sweep(on.deployment, ())


async def test_following_says_nothing_of_what_runs_and_can_be_given_up(on: Started) -> None:
    ended: list[str] = []
    container = await on.start()
    with anyio.move_on_after(0.5):
        await on.engine.follow("i-1", ended.append)
    assert container.id not in ended
    assert await on.engine.standing(container) is Standing.RUNS
