"""The look from inside a pod whether it has a network: it finds one that is there, and believes a wall."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

import cluster
from gateways import GatewayFactory
from taskcell.engine.kubernetes import inside
from taskcell.engine.kubernetes.api import Api
from taskcell.engine.kubernetes.inside import PodCell
from taskcell.errors import EngineError
from taskcell.gateway.gateway import Gateway
from taskcell.model import ToolCall

pytestmark = [pytest.mark.anyio, pytest.mark.kubernetes]

#: Seconds for a test on a busy machine.
LIMIT = 180.0
NODE, NAMESPACE = 2, "tc-network"
TOML = "manifests = []\n[policy]\nallow_unenforced = [{allowed}]\n"


@asynccontextmanager
async def on_open_node(
    gateway: GatewayFactory, tmp_path: Path, allowed: str = "'pids'"
) -> AsyncIterator[tuple[Gateway, Api]]:
    """A server whose pods are made on a node that has a network for them."""
    config = cluster.config(tmp_path / "k", NAMESPACE)
    toml = TOML.format(allowed=allowed)
    async with cluster.namespace(NAMESPACE) as admin, cluster.only_node(NODE):
        with cluster.routed(NODE):
            async with gateway(toml, engine="kubernetes", host=config, state=tmp_path / "s") as gw:
                with anyio.fail_after(LIMIT):
                    yield gw, admin


async def run(gw: Gateway) -> str:
    return (await gw.call(ToolCall("local", "terminal", {"command": "echo here", "task_id": "a"}))).stdout


async def running(admin: Api) -> list[dict[str, Any]]:
    found = await admin.call("GET", admin.path("pods"))
    return [one for one in found["items"] if one["status"].get("phase") == "Running"]


async def test_a_network_that_no_policy_keeps_pods_from_is_found_and_refused(
    gateway: GatewayFactory, tmp_path: Path
) -> None:
    async with on_open_node(gateway, tmp_path) as (gw, admin):
        with pytest.raises(EngineError, match=r"node n2 reached the cluster's API in spite of the NetworkPolicy"):
            await run(gw)
        while await running(admin):  # its pod is not left
            await anyio.sleep(0.1)
        path = tmp_path / "doctor.toml"
        host = f"[engine]\nkind = 'kubernetes'\nhost = '{tmp_path / 'k'}'\n"
        path.write_text(TOML.format(allowed="'pids'") + host)
        argv = [sys.executable, "-m", "taskcell", "doctor", "--config", str(path)]
        said = await anyio.run_process(argv, check=False, env=os.environ | {"COLUMNS": "500"})
        assert "reached the cluster's API in spite of the NetworkPolicy" in " ".join(said.stdout.decode().split())


async def test_an_operator_can_allow_that_and_the_pod_really_has_a_network(
    gateway: GatewayFactory, tmp_path: Path
) -> None:
    async with on_open_node(gateway, tmp_path, "'pids', 'network'") as (gw, admin):
        assert await run(gw) == "here\n"
        (pod,) = await running(admin)
        at = PodCell(pod["metadata"]["name"], pod["spec"]["containers"][0]["name"])
        assert await inside.reaches(admin, at)
        with cluster.walled(NODE):
            assert not await inside.reaches(admin, at)


async def test_a_network_that_keeps_pods_from_it_is_believed(gateway: GatewayFactory, tmp_path: Path) -> None:
    async with on_open_node(gateway, tmp_path) as (gw, _):
        with cluster.walled(NODE):
            assert await run(gw) == "here\n"
