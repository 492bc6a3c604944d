"""A pod whose end its stream does not tell, because its node is cut off: the engine's watch does."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.abc
import pytest

from api_server import api_server
from local_pods import LocalNodes, LocalPods
from observe import HOST_TIMEOUT
from taskcell.assembly.gateway import open_gateway
from taskcell.assembly.invocation import Invocation
from taskcell.assembly.stack import load_settings
from taskcell.engine.base import Container, Standing
from taskcell.engine.kubernetes.api import JSON_PATCH
from taskcell.errors import SandboxLost
from taskcell.model import ToolCall
from taskcell.tools.catalog import build_tools

pytestmark = pytest.mark.anyio

#: So long that the channel's own pings find nothing within the test.
TOML = "manifests = []\n[engine]\nkind = 'local'\n[pool]\nwarm = 0\non_exit = 'close'\norphan_ttl = '1h'\n"


class WatchedPods(LocalPods):
    """Pods that have ended where the API has none, whatever their processes do."""

    async def follow(self, instance: str, ended: Callable[[str], None]) -> None:
        await self._pods.watch.run(instance, ended)

    async def standing(self, container: Container) -> Standing:
        return Standing.ENDED if await self._pods.look(container.id) is None else Standing.RUNS

    @asynccontextmanager
    async def connect(self, container: Container) -> AsyncIterator[anyio.abc.ByteStream]:
        if await self._pods.look(container.id) is None:
            raise SandboxLost("The pod is gone.")
        async with super().connect(container) as stream:
            yield stream


@pytest.mark.parametrize("is_taken", [False, True], ids=["deleted", "taken by another server"])
async def test_a_sandbox_without_a_pod_is_lost_though_its_stream_is_silent(tmp_path: Path, is_taken: bool) -> None:
    path = tmp_path / "taskcell.toml"
    path.write_text(TOML)
    settings, nodes = load_settings(Invocation({}, tmp_path, path)), LocalNodes()
    async with api_server() as server:
        api = server.api()
        async with open_gateway(settings, build_tools(settings, ()), WatchedPods(nodes, api)) as gateway:
            with anyio.fail_after(HOST_TIMEOUT):
                await gateway.call(ToolCall("local", "terminal", {"command": "true", "task_id": "a"}))
                (slot,) = gateway.pool.slots
                assert slot.sandbox is not None
                channel = slot.sandbox.channel
                (process,) = nodes.engine._processes.values()
                os.kill(process.pid, signal.SIGSTOP)
                try:
                    while not server.requests["WATCH pods"]:
                        await anyio.sleep(0.01)
                    name = slot.sandbox.container.id.split("/")[0]
                    looks = server.requests["GET pods"]
                    if is_taken:  # a watch by label says DELETED of it too
                        at = "/metadata/labels/taskcell.dev~1instance"
                        change = [{"op": "replace", "path": at, "value": "another"}]
                        await api.call("PATCH", api.path("pods", name), change, JSON_PATCH)
                        while server.requests["GET pods"] == looks:
                            await anyio.sleep(0.01)
                        assert channel.alive
                        assert not channel.is_away
                    else:
                        await api.call("DELETE", api.path("pods", name))
                        while channel.alive:
                            await anyio.sleep(0.01)
                finally:
                    process.kill()
        await api.aclose()
