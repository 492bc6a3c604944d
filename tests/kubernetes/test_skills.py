"""Several containers in one pod: a terminal and skills that see the same files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

import cluster
from gateways import GatewayFactory
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


async def pods(admin: Any) -> list[dict[str, Any]]:
    found = await admin.call("GET", admin.path("pods"), labelSelector="taskcell.dev/sandbox=1")
    return [one for one in found["items"] if not one["metadata"].get("deletionTimestamp")]


async def test_a_terminal_and_skills_share_one_pod_and_its_files(gateway: GatewayFactory, tmp_path: Path) -> None:
    (tmp_path / "skills.toml").write_text(MANIFEST)
    async with (
        cluster.namespace("tc-skills") as admin,
        gateway(
            TOML, engine="kubernetes", host=cluster.config(tmp_path / "k", "tc-skills"), state=tmp_path / "s"
        ) as gw,
    ):
        with anyio.fail_after(LIMIT):
            await call(gw, "terminal", command="echo one > file")
            assert (await call(gw, "first", args=["cat file; echo two >> file"])).stdout == "one\n"
            assert (await call(gw, "second", args=["cat file"])).stdout == "one\ntwo\n"
            (pod,) = await pods(admin)
            assert len(pod["metadata"]["annotations"]["taskcell.dev/cells"].split(",")) == 3
            # Each has a successor in one new pod.
            await call(gw, "sandbox", action="reset")
            assert (await call(gw, "first", args=["cat file; echo three >> file"])).stdout == "one\ntwo\n"
            assert (await call(gw, "terminal", command="cat file")).stdout == "one\ntwo\nthree\n"
            while len(left := await pods(admin)) > 1:
                await anyio.sleep(0.1)
            assert left[0]["metadata"]["name"] != pod["metadata"]["name"]
            await call(gw, "sandbox", action="close")
            while await pods(admin):
                await anyio.sleep(0.1)


async def test_a_supervisor_that_died_is_followed_in_its_place_with_the_same_files(
    gateway: GatewayFactory, tmp_path: Path
) -> None:
    (tmp_path / "skills.toml").write_text(MANIFEST)
    async with (
        cluster.namespace("tc-skills") as admin,
        gateway(
            TOML, engine="kubernetes", host=cluster.config(tmp_path / "k", "tc-skills"), state=tmp_path / "s"
        ) as gw,
    ):
        with anyio.fail_after(LIMIT):
            await call(gw, "terminal", command="echo one > file")
            (pod,) = await pods(admin)
            await anyio.to_thread.run_sync(cluster.kill_containers, pod)
            while True:
                done = await call(gw, "terminal", command="cat file")
                if done.status.value == "exited":
                    break
            assert done.stdout == "one\n"
            (after,) = await pods(admin)
            assert after["metadata"]["uid"] == pod["metadata"]["uid"]
