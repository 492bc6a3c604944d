"""What an operator does on purpose to a real cluster with sandboxes: deletes their namespace, drains their node."""

from __future__ import annotations

import os
from pathlib import Path

import anyio
import pytest

import cluster
from gateways import GatewayFactory
from taskcell.errors import EngineError
from taskcell.gateway.gateway import Gateway
from taskcell.model import ProcessResult, ToolCall

pytestmark = [pytest.mark.anyio, pytest.mark.kubernetes]

#: Seconds for a test on a busy machine.
LIMIT = 240.0
TOML = "manifests = []\n[policy]\nallow_unenforced = ['pids']\n"
KUBECTL = ["{TASKCELL_TEST_KUBECTL}", "--kubeconfig", "{TASKCELL_TEST_KUBECONFIG}"]
BUDGET = {
    "metadata": {"name": "taskcell-sandboxes"},
    "spec": {
        "minAvailable": 100000,
        "selector": {"matchExpressions": [{"key": "taskcell.dev/network", "operator": "Exists"}]},
    },
}


async def terminal(gw: Gateway, command: str, task: str = "a") -> ProcessResult:
    return await gw.call(ToolCall("local", "terminal", {"command": command, "task_id": task}))


async def begun(gw: Gateway) -> None:
    while (await terminal(gw, "cat begun")).stdout != "begun\n":
        await anyio.sleep(0.05)


async def kubectl(*words: str, check: bool = True) -> str:
    argv = [word.format(**os.environ) for word in KUBECTL]
    done = await anyio.run_process([*argv, *words], check=check)
    return done.stdout.decode() + done.stderr.decode()


async def test_a_namespace_that_is_deleted_under_a_command_ends_it_and_says_so(
    gateway: GatewayFactory, tmp_path: Path
) -> None:
    results: list[ProcessResult] = []
    config = cluster.config(tmp_path / "k", "tc-going")
    async with gateway(TOML, engine="kubernetes", host=config) as gw:

        async def long() -> None:
            results.append(await terminal(gw, "echo begun > begun; echo out; sleep 1000"))

        with anyio.fail_after(LIMIT):
            async with anyio.create_task_group() as calls, cluster.namespace("tc-going"):
                calls.start_soon(long)
                await begun(gw)
            assert (results[0].status.value, results[0].stdout) in (("lost", "out\n"), ("killed", "out\n"))
            with pytest.raises(EngineError, match='namespaces "tc-going" not found'):
                await terminal(gw, "true", "b")


async def test_a_node_is_drained_when_its_sandboxes_are_closed_and_not_before(
    gateway: GatewayFactory, tmp_path: Path
) -> None:
    config = cluster.config(tmp_path / "k", "tc-going")
    drain = ["drain", "--ignore-daemonsets", "--force", "--delete-emptydir-data", "--pod-selector=taskcell.dev/sandbox"]
    async with (
        cluster.namespace("tc-going", ("policy/v1beta1", "poddisruptionbudgets", BUDGET)) as admin,
        gateway(TOML, engine="kubernetes", host=config) as gw,
    ):
        with anyio.fail_after(LIMIT):
            await terminal(gw, "echo kept > file")
            (pod,) = await cluster.pods(admin)
            node = pod["spec"]["nodeName"]
            try:
                said = await kubectl(*drain, node, "--timeout=5s", check=False)
                assert "Cannot evict pod as it would violate the pod's disruption budget" in said
                assert (await terminal(gw, "cat file")).stdout == "kept\n"
                assert (await terminal(gw, "echo here", "b")).stdout == "here\n"
                others = [one for one in await cluster.pods(admin) if one["spec"]["nodeName"] != node]
                assert len(others) == 1
                await gw.call(ToolCall("local", "sandbox", {"action": "close", "task_id": "a"}))
                await kubectl(*drain, node, f"--timeout={LIMIT:.0f}s")
                assert (await terminal(gw, "echo still", "b")).stdout == "still\n"
            finally:
                with anyio.CancelScope(shield=True), anyio.move_on_after(cluster.CLUSTER_TIMEOUT):
                    await kubectl("uncordon", node)
