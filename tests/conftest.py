"""Fixtures of the whole suite: the event loop's backend, and the two engines and the images that tests run on."""

from __future__ import annotations

import fcntl
import itertools
import logging
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import docker
import pytest
import structlog
from hypothesis import HealthCheck, settings

from event_loop import Loop
from gateways import GatewayFactory
from second_engine import SecondEngine
from taskcell.assembly.gateway import open_gateway
from taskcell.assembly.invocation import Invocation
from taskcell.assembly.stack import load_settings
from taskcell.engine.base import Engine
from taskcell.engine.docker.engine import DockerEngine
from taskcell.engine.kubernetes.api import Api
from taskcell.engine.kubernetes.engine import KubernetesEngine
from taskcell.engine.kubernetes.kubeconfig import find_cluster
from taskcell.engine.local import LocalEngine
from taskcell.gateway.gateway import Gateway
from taskcell.images import skills as skill_images
from taskcell.skills import manifest
from taskcell.tools.catalog import build_tools, built_in_names

ROOT = Path(__file__).parents[1]

# A machine that is busy with other suites is no fault of what is tested.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@pytest.fixture(scope="session", autouse=True)
def state_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What servers keep about their deployments, and their audit log: never in the home of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as environ:
        environ.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    return "asyncio", {"loop_factory": Loop}


@pytest.fixture(autouse=True)
def log_as_it_was() -> Iterator[None]:
    """Undo what a command of a test set up: a later test that reads log lines would miss those below its level."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.reset_defaults()
    root.handlers[:], root.level = handlers, level


@pytest.fixture(scope="session")
def docker_api() -> Iterator[docker.APIClient]:
    client = docker.APIClient(version="auto")
    yield client
    client.close()


@pytest.fixture(scope="session")
def skill_images_built() -> None:
    """Every skill's image, built first where it is missing or outdated: two minutes on a machine without any.

    The suite runs in several processes: the first one builds, the others wait.
    """

    async def build() -> None:
        engine = await DockerEngine.open("", {})
        try:
            await skill_images.build(engine.images, tuple(skill_images.CATALOG.values()), report=print)
        finally:
            await engine.aclose()

    with (ROOT / ".cache" / "skill-images.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        anyio.run(build)


async def _engine(kind: str, host: str, storage_class: str) -> Engine:
    if kind == "local":
        return LocalEngine()
    if kind == "kubernetes":
        api = Api(lambda: find_cluster({}, host or os.environ["TASKCELL_TEST_KUBECONFIG"]))
        return KubernetesEngine(api, storage_class)
    return await DockerEngine.open(host, {})


@pytest.fixture
def gateway(tmp_path: Path) -> GatewayFactory:
    """`async with gateway(toml="…", engine="docker") as gw`: the whole stack below MCP, closed at the end.

    `warm` sandboxes are none unless a test asks for them; `state` is the folder that servers know each other by.
    `more` is for `open_gateway`, such as `audit` and `resolve`.
    """
    numbers = itertools.count()

    @asynccontextmanager
    async def opened(
        toml: str = "", engine: str = "docker", host: str = "", warm: int = 0, state: Path | None = None, **more: Any
    ) -> AsyncIterator[Gateway]:
        path = tmp_path / f"taskcell-{next(numbers)}.toml"
        path.write_text(toml, encoding="utf-8")
        # Nothing is left to a next server unless a test is about that.
        ends = {} if "on_exit" in toml else {"TASKCELL__POOL__ON_EXIT": "close"}
        loaded = load_settings(Invocation({"TASKCELL__POOL__WARM": str(warm), **ends}, tmp_path, path))
        skills = manifest.load(loaded.manifest_paths, {}, built_in_names())
        made = await _engine(engine, host, loaded.engine.storage_class)
        try:
            async with open_gateway(loaded, build_tools(loaded, skills), made, state, **more) as gw:
                yield gw
        finally:
            await made.aclose()

    return opened


@pytest.fixture
def second_engine() -> Iterator[SecondEngine]:
    """A dockerd of our own, with an image of dash alone."""
    engine = SecondEngine()
    try:
        engine.start()
        yield engine
    finally:
        engine.remove()
