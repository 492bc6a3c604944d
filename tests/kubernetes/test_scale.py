"""Many pods at once on a real cluster."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from cluster import CLUSTER_TIMEOUT, config, namespace
from gateways import GatewayFactory
from taskcell.engine.kubernetes.api import JSON_PATCH
from taskcell.gateway.gateway import Gateway
from taskcell.model import ToolCall

pytestmark = [pytest.mark.anyio, pytest.mark.kubernetes]

TOML = """
manifests = []
[policy]
allow_unenforced = ['pids']
[pool]
max_per_principal = 64
[terminal]
memory = '128m'
[workspace]
size = '8m'
"""

#: Pods of a node before another one comes back, and pods that are made then: fewer, so that an even number of all on
#: each node would lead every one to the empty one.
FULL, MORE = 10, 8


async def open_tasks(gw: Gateway, *names: str) -> None:
    """A sandbox for each of these tasks, all at once."""
    async with anyio.create_task_group() as opening:
        for name in names:
            opening.start_soon(gw.call, ToolCall("local", "terminal", {"command": "true", "task_id": name}))


async def nodes_of(admin: Any) -> Counter[str]:
    found = await admin.call("GET", admin.path("pods"), labelSelector="taskcell.dev/sandbox=1")
    running = [one for one in found["items"] if not one["metadata"].get("deletionTimestamp")]
    return Counter(one["spec"]["nodeName"] for one in running)


@asynccontextmanager
async def closed_to_pods(admin: Any, node: str) -> AsyncIterator[None]:
    """A node that gets no new pods."""
    path = f"/api/v1/nodes/{node}"

    async def close(wanted: bool) -> None:
        change = [{"op": "add", "path": "/spec/unschedulable", "value": wanted}]
        await admin.call("PATCH", path, change, JSON_PATCH)
        with anyio.fail_after(CLUSTER_TIMEOUT):  # a controller sees it, and taints the node
            while bool((await admin.call("GET", path))["spec"].get("taints")) != wanted:
                await anyio.sleep(0.1)

    await close(True)
    try:
        yield
    finally:
        with anyio.CancelScope(shield=True):
            await close(False)


async def test_a_node_that_comes_back_empty_does_not_get_every_new_pod(gateway: GatewayFactory, tmp_path: Path) -> None:
    async with namespace("tc-spread") as admin:
        host = config(tmp_path / "kubeconfig", "tc-spread")
        async with gateway(TOML, engine="kubernetes", host=host) as gw:
            async with closed_to_pods(admin, "n2"):
                await open_tasks(gw, *(f"before {number}" for number in range(FULL)))
                before = await nodes_of(admin)
                assert before["n1"] >= FULL - 1
            await open_tasks(gw, *(f"after {number}" for number in range(MORE)))
            added = await nodes_of(admin) - before
            # Of each ten seconds' pods both nodes get half, or one more.
            assert min(added["n1"], added["n2"]) >= 2, added
