"""Ready pods on a cluster: a patch that tests what it changes says which server's task gets one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from api_server import ApiServer, api_server
from local_pods import LocalNodes, LocalPods
from observe import HOST_TIMEOUT
from taskcell.assembly.gateway import open_gateway
from taskcell.assembly.invocation import Invocation
from taskcell.assembly.stack import load_settings
from taskcell.engine.kubernetes.api import JSON_PATCH
from taskcell.engine.kubernetes.pods import Pods
from taskcell.errors import Taken
from taskcell.gateway.gateway import Gateway
from taskcell.model import ToolCall
from taskcell.tools.catalog import build_tools

pytestmark = pytest.mark.anyio

TOML = "deployment = 'test'\nmanifests = []\n[engine]\nkind = 'local'\n[pool]\nwarm = 1\non_exit = 'close'\n"
NAME, INSTANCE = "taskcell.dev/name", "taskcell.dev/instance"
POD = {"metadata": {"name": "ready", "labels": {INSTANCE: "one"}, "annotations": {NAME: ""}}, "spec": {}}


async def test_of_servers_that_want_one_ready_pod_one_gets_it() -> None:
    async with api_server() as server:
        api = server.api()
        uid = (await api.call("POST", api.path("pods"), POD))["metadata"]["uid"]
        won: list[int] = []

        async def want(number: int) -> None:
            try:
                await Pods(api).assign(f"ready/{uid}/c/0", f"name-{number}", "one")
            except Taken:
                return
            won.append(number)

        async with anyio.create_task_group() as racing:
            for number in range(8):
                racing.start_soon(want, number)
        assert server.all("pods")["ready"]["metadata"]["annotations"][NAME] == f"name-{won[0]}"
        assert len(won) == 1
        await api.aclose()


@pytest.mark.parametrize(
    ("container", "owner"), [("ready/{uid}/c/0", "two"), ("ready/another/c/0", "one"), ("gone/{uid}/c/0", "one")]
)
async def test_a_pod_that_is_another_ones_or_gone_is_taken(container: str, owner: str) -> None:
    async with api_server() as server:
        api = server.api()
        uid = (await api.call("POST", api.path("pods"), POD))["metadata"]["uid"]
        with pytest.raises(Taken):
            await Pods(api).assign(container.format(uid=uid), "name", owner)
        assert server.all("pods")["ready"]["metadata"]["annotations"][NAME] == ""
        await api.aclose()


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[tuple[Gateway, ApiServer]]:
    path = folder / "taskcell.toml"
    path.write_text(TOML)
    settings = load_settings(Invocation({}, folder, path))
    async with api_server() as server:
        api = server.api()
        async with open_gateway(settings, build_tools(settings, ()), LocalPods(LocalNodes(), api)) as gateway:
            yield gateway, server
        await api.aclose()


async def run(gateway: Gateway, task: str) -> str:
    with anyio.fail_after(HOST_TIMEOUT):
        return (await gateway.call(ToolCall("local", "terminal", {"command": "echo here", "task_id": task}))).stdout


async def ready_pod(gateway: Gateway) -> str:
    """The name of the pod that stands ready, once one does."""
    with anyio.fail_after(HOST_TIMEOUT):
        while True:
            for slot in gateway.pool.slots:
                if slot.is_warm and slot.sandbox is not None and slot.settled.is_set():
                    return slot.sandbox.container.name
            await anyio.sleep(0.05)


async def test_a_task_has_its_ready_pod_before_its_first_command_runs(tmp_path: Path) -> None:
    async with serving(tmp_path) as (gateway, server):
        await run(gateway, "a")
        name = await ready_pod(gateway)
        assert server.all("pods")[name]["metadata"]["annotations"][NAME] == ""
        before = server.requests["PATCH pods"]
        assert await run(gateway, "b") == "here\n"
        assert server.requests["PATCH pods"] == before + 1
        assert "-terminal-" in server.all("pods")[name]["metadata"]["annotations"][NAME]
        assert "warm" not in server.all("pods")[name]["metadata"]["annotations"][NAME]


async def test_a_ready_pod_that_another_server_was_faster_to_take_is_left_and_the_task_gets_another(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as (gateway, server):
        await run(gateway, "a")
        name = await ready_pod(gateway)
        api = server.api()
        at = "/metadata/annotations/taskcell.dev~1name"
        await api.call("PATCH", api.path("pods", name), [{"op": "replace", "path": at, "value": "x"}], JSON_PATCH)
        assert await run(gateway, "b") == "here\n"
        (slot,) = [slot for slot in gateway.pool.slots if slot.task.task == "b"]
        assert slot.sandbox is not None
        assert not slot.sandbox.container.id.startswith(f"{name}/")
        await api.aclose()
