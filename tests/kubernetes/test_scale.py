"""Many pods at once on a real cluster."""

from __future__ import annotations

import os
import resource
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

import admission
from cluster import CLUSTER_TIMEOUT, config, namespace, pods
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

#: Tasks of one principal, tasks of another one that come after them, and sandboxes that there may be at once; a run by
#: hand may have more.
TASKS, FEW = int(os.environ.get("TASKCELL_TEST_TASKS", "24")), 4
PLACES = int(os.environ.get("TASKCELL_TEST_PLACES", "8"))
#: Seconds for that on a busy machine; and bytes by which the server grows: 47 KiB a sandbox, and 500 calls that wait.
LIMIT, GROWTH = 1800.0, 64 << 20


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


async def test_many_tasks_share_few_places_with_one_sandbox_each_and_nobody_starves(
    gateway: GatewayFactory, tmp_path: Path
) -> None:
    made: list[str] = []
    answered: list[str] = []

    def review(request: dict[str, Any]) -> str:
        made.append(str(request["object"]["metadata"]["name"]))
        return ""

    toml = f"{TOML}[pool]\nmax_sandboxes = {PLACES}\nmax_per_principal = {PLACES}\nacquire_timeout = '1h'\n"
    toml = toml.replace("[pool]\nmax_per_principal = 64\n", "", 1)
    async with namespace("tc-places") as admin, admission.reviewed(admin, tmp_path, review, ["pods"], ["CREATE"]):
        host = config(tmp_path / "kubeconfig", "tc-places")
        async with gateway(toml, engine="kubernetes", host=host) as gw:

            async def call(principal: str, number: int) -> None:
                arguments = {"command": f"echo {number}", "task_id": f"t{number}"}
                done = await gw.call(ToolCall(principal, "terminal", arguments))
                assert done.stdout == f"{number}\n"
                answered.append(principal)

            with anyio.fail_after(LIMIT):
                before = resident()
                async with anyio.create_task_group() as calls:
                    for number in range(TASKS):
                        calls.start_soon(call, "many", number)
                    await anyio.wait_all_tasks_blocked()
                    for number in range(FEW):
                        calls.start_soon(call, "few", number)
                grown = resident() - before
            assert len(await pods(admin)) <= PLACES
    print(f"{len(answered)} answers, {len(made)} sandboxes, {grown >> 20} MiB more")
    assert len(answered) == len(set(made)) == len(made) == TASKS + FEW
    # Whoever comes after all of the others' tasks does not wait for them.
    assert max(place for place, name in enumerate(answered) if name == "few") < TASKS // 2 + FEW
    assert grown < GROWTH


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
