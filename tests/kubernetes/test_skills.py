"""Several containers in one pod: a terminal and skills that see the same files."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

import cluster
from gateways import GatewayFactory
from taskcell.engine.kubernetes.api import Api
from taskcell.gateway.gateway import Gateway
from taskcell.model import ProcessResult, ToolCall

pytestmark = [pytest.mark.anyio, pytest.mark.kubernetes]

#: Seconds for a test on a busy machine.
LIMIT = 120.0
MANIFEST = """
[skills.first]
description = "x"
[skills.first.docker]
image = "taskcell/base:latest"
entrypoint = ["sh", "-c"]

[skills.second]
description = "x"
[skills.second.docker]
image = "taskcell/base:latest"
entrypoint = ["sh", "-c"]
"""
TOML = "manifests = ['skills.toml']\n[policy]\nallow_unenforced = ['pids']\n"


async def call(gw: Gateway, tool: str, task: str = "a", **arguments: object) -> ProcessResult:
    return await gw.call(ToolCall("local", tool, {"task_id": task, **arguments}))


@pytest.fixture
async def served(gateway: GatewayFactory, tmp_path: Path) -> AsyncIterator[tuple[Gateway, Api]]:
    """A gateway with both skills, and the administrator of the namespace that is its own."""
    (tmp_path / "skills.toml").write_text(MANIFEST)
    async with cluster.namespace("tc-skills") as admin:
        config = cluster.config(tmp_path / "k", "tc-skills")
        async with gateway(TOML, engine="kubernetes", host=config, state=tmp_path / "s") as gw:
            yield gw, admin


async def test_a_terminal_and_skills_share_one_pod_and_its_files(served: tuple[Gateway, Api]) -> None:
    gw, admin = served
    with anyio.fail_after(LIMIT):
        await call(gw, "terminal", command="echo one > file")
        assert (await call(gw, "first", args=["cat file; echo two >> file"])).stdout == "one\n"
        assert (await call(gw, "second", args=["cat file"])).stdout == "one\ntwo\n"
        (pod,) = await cluster.pods(admin)
        assert len(pod["metadata"]["annotations"]["taskcell.dev/cells"].split(",")) == 3
        # Each has a successor in one new pod.
        await call(gw, "sandbox", action="reset")
        assert (await call(gw, "first", args=["cat file; echo three >> file"])).stdout == "one\ntwo\n"
        assert (await call(gw, "terminal", command="cat file")).stdout == "one\ntwo\nthree\n"
        while len(left := await cluster.pods(admin)) > 1:
            await anyio.sleep(0.1)
        assert left[0]["metadata"]["name"] != pod["metadata"]["name"]
        await call(gw, "sandbox", action="close")
        while await cluster.pods(admin):
            await anyio.sleep(0.1)


async def test_a_supervisor_that_died_is_followed_in_its_place_with_the_same_files(served: tuple[Gateway, Api]) -> None:
    gw, admin = served
    with anyio.fail_after(LIMIT):
        await call(gw, "terminal", command="echo one > file")
        (pod,) = await cluster.pods(admin)
        await anyio.to_thread.run_sync(cluster.kill_containers, pod)
        while (done := await call(gw, "terminal", command="cat file")).status.value != "exited":
            pass  # this call found its sandbox dying
        assert done.stdout == "one\n"
        (after,) = await cluster.pods(admin)
        assert after["metadata"]["uid"] == pod["metadata"]["uid"]
