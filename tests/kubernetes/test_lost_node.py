"""A node that loses its network and stays away: what becomes of a task, of its pod, of the quota and of what ran."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

import cluster
from gateways import GatewayFactory
from observe import alive, marker
from taskcell.errors import NoRoom
from taskcell.gateway.gateway import Gateway
from taskcell.model import ProcessResult, ToolCall

pytestmark = [pytest.mark.anyio, pytest.mark.kubernetes]

#: Seconds that a sandbox lives without a server, and within which everything here is over on a busy machine.
ORPHAN_TTL, LIMIT = 20, 300.0
TOML = f"manifests = []\n[policy]\nallow_unenforced = ['pids']\n[pool]\norphan_ttl = {ORPHAN_TTL}\n"
#: What deploy/kubernetes bounds as well; here the lost pod's place is the only one.
QUOTA = {"metadata": {"name": "few"}, "spec": {"hard": {"pods": "1"}}}


async def terminal(gw: Gateway, command: str, task: str = "a") -> ProcessResult:
    return await gw.call(ToolCall("local", "terminal", {"command": command, "task_id": task}))


async def in_a_fresh_sandbox(gw: Gateway, command: str) -> ProcessResult:
    """Call as a client that is asked to call again: while its sandbox is being lost, and while there is no room."""
    while True:
        try:
            done = await terminal(gw, command)
        except NoRoom as refused:  # the cluster counts what it cannot reach for some seconds
            assert "quota has no room" in str(refused)  # noqa: PT017 - it may come, and must say this
        else:
            if done.status.value != "lost":
                return done
        await anyio.sleep(0.5)


async def leaving(admin: Any) -> list[str]:
    """Names of the pods that have been deleted, and are still there."""
    found = await admin.call("GET", admin.path("pods"))
    return [one["metadata"]["name"] for one in found["items"] if one["metadata"].get("deletionTimestamp")]


async def test_a_task_goes_on_elsewhere_and_nothing_waits_for_its_pod_or_runs_on(
    gateway: GatewayFactory, tmp_path: Path
) -> None:
    mark, results = marker(), list[ProcessResult]()
    async with (
        cluster.namespace("tc-away", ("", "resourcequotas", QUOTA)) as admin,
        gateway(TOML, engine="kubernetes", host=cluster.config(tmp_path / "k", "tc-away")) as gw,
    ):
        await terminal(gw, "true")

        async def long() -> None:
            results.append(await terminal(gw, f"echo begun > begun; echo out; setsid sleep {mark} & sleep {mark}"))

        with anyio.fail_after(LIMIT):
            async with anyio.create_task_group() as calls:
                calls.start_soon(long)
                while (await terminal(gw, "cat begun")).stdout != "begun\n":
                    await anyio.sleep(0.05)
                (pod,) = await cluster.pods(admin)
                with cluster.cut_off(cluster.number_of(pod)):
                    after = await in_a_fresh_sandbox(gw, "echo again; ls")
                    (fresh,) = await cluster.pods(admin)
                    while alive(mark) or cluster.processes(pod):
                        await anyio.sleep(0.1)
                    assert await leaving(admin) == [pod["metadata"]["name"]]
                    assert fresh["spec"]["nodeName"] != pod["spec"]["nodeName"]
        assert (results[0].status.value, results[0].stdout) == ("lost", "out\n")
        assert after.stdout == "again\n"
        assert "was replaced by a fresh one; the files that were in the workspace are lost." in " ".join(after.notes)
