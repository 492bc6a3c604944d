"""Pods that stand ready, and the servers that want them."""

from __future__ import annotations

import contextlib
from pathlib import Path

import anyio
import pytest

import cluster
from gateways import GatewayFactory
from pool_slots import POLICY
from taskcell.config.settings import Settings
from taskcell.engine.base import ContainerSpec, Workspace
from taskcell.engine.kubernetes.engine import KubernetesEngine
from taskcell.errors import Taken
from taskcell.model import ToolCall
from taskcell.profile.build import terminal_profile

pytestmark = [pytest.mark.anyio, pytest.mark.kubernetes]

#: Seconds for a test on a busy machine.
LIMIT = 180.0
SERVERS = 8
TOML = "manifests = []\n[policy]\nallow_unenforced = ['pids']\n"
NAME = "taskcell.dev/name"


async def test_of_eight_servers_that_want_one_ready_pod_one_gets_it(tmp_path: Path) -> None:
    config = cluster.config(tmp_path / "k", "tc-ready")
    async with cluster.namespace("tc-ready") as admin:
        engines = [KubernetesEngine(cluster.api(config)) for _ in range(SERVERS)]
        profile = POLICY.authorize_profile(terminal_profile(Settings()))
        labels = {"taskcell": "1", "taskcell.deployment": "tests", "taskcell.instance": "i"}
        spec = ContainerSpec(profile, "ready", Workspace(1 << 20), labels, 60.0, allow_unenforced=frozenset({"pids"}))
        with anyio.fail_after(LIMIT):
            ready = await engines[0].start(spec)
            assert ready.is_contended
            won: list[str] = []

            async def want(number: int) -> None:
                with contextlib.suppress(Taken):
                    won.append((await engines[number].assign(ready, f"name-{number}")).name)

            async with anyio.create_task_group() as racing:
                for number in range(SERVERS):
                    racing.start_soon(want, number)
            found = await admin.call("GET", admin.path("pods", "ready"))
            assert won == [found["metadata"]["annotations"][NAME]]
            again = await engines[1].find(ready.id, profile)
            assert again is not None
            assert not again.is_contended
            await engines[0].own_only("another")
            with pytest.raises(Taken):
                await engines[0].assign(ready, "name")
            await engines[1].remove(ready)
            for engine in engines:
                await engine.aclose()


async def test_a_new_task_has_the_pod_that_stands_ready(gateway: GatewayFactory, tmp_path: Path) -> None:
    config = cluster.config(tmp_path / "k", "tc-ready")
    async with (
        cluster.namespace("tc-ready") as admin,
        gateway(TOML, engine="kubernetes", host=config, state=tmp_path / "s", warm=1) as gw,
    ):
        with anyio.fail_after(LIMIT):
            await gw.call(ToolCall("local", "terminal", {"command": "true", "task_id": "a"}))
            while not any(slot.is_warm and slot.settled.is_set() for slot in gw.pool.slots):
                await anyio.sleep(0.1)
            (ready,) = [slot.sandbox for slot in gw.pool.slots if slot.is_warm and slot.sandbox]
            await gw.call(ToolCall("local", "terminal", {"command": "true", "task_id": "b"}))
            found = await admin.call("GET", admin.path("pods", ready.container.id.split("/")[0]))
            (slot,) = [slot for slot in gw.pool.slots if slot.task.task == "b"]
            assert slot.sandbox is ready
            assert found["metadata"]["annotations"][NAME] == ready.container.name
            assert "warm" not in ready.container.name
