"""What others do in a server's namespace, by mistake or on purpose, while it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import anyio
import pytest

import cluster
from gateways import GatewayFactory
from taskcell.engine.kubernetes.api import Api
from taskcell.engine.kubernetes.network_policies import POLICY_GROUP, POLICY_NAME, holds
from taskcell.engine.kubernetes.status import runs
from taskcell.errors import EngineError
from taskcell.gateway.gateway import Gateway
from taskcell.model import ProcessResult, ToolCall

pytestmark = [pytest.mark.anyio, pytest.mark.kubernetes]

#: Seconds for a test on a busy machine.
LIMIT = 180.0
NAMESPACE = "tc-neighbours"
TOML = "manifests = []\n[policy]\nallow_unenforced = ['pids']\n"


async def terminal(gw: Gateway, command: str, task: str = "a") -> ProcessResult:
    return await gw.call(ToolCall("local", "terminal", {"command": command, "task_id": task}))


@pytest.fixture
async def admin() -> AsyncIterator[Api]:
    async with cluster.namespace(NAMESPACE) as found:
        yield found


@pytest.fixture
def config(tmp_path: Path) -> str:
    return cluster.config(tmp_path / "k", NAMESPACE)


async def delete_every(admin: Api, kind: str, group: str = "") -> None:
    found = await admin.call("GET", admin.path(kind, group=group), labelSelector="taskcell.dev/sandbox=1")
    assert found["items"]
    for one in found["items"]:
        await admin.call("DELETE", admin.path(kind, one["metadata"]["name"], group))


async def test_a_supervisors_configmap_that_was_deleted_is_made_again(
    gateway: GatewayFactory, admin: Api, config: str
) -> None:
    async with gateway(TOML, engine="kubernetes", host=config) as gw:
        with anyio.fail_after(LIMIT):
            await terminal(gw, "true")
            await delete_every(admin, "configmaps")
            assert (await terminal(gw, "echo here", "b")).stdout == "here\n"
            assert (await terminal(gw, "echo still")).stdout == "still\n"


async def policies(admin: Api) -> set[str]:
    found = await admin.call("GET", admin.path("networkpolicies", group=POLICY_GROUP))
    return {one["metadata"]["name"] for one in found["items"]}


async def test_a_network_policy_that_was_deleted_or_opened_is_restored_while_sandboxes_run(
    gateway: GatewayFactory, admin: Api, config: str
) -> None:
    at = admin.path("networkpolicies", POLICY_NAME, POLICY_GROUP)
    opened = {"spec": {"egress": [{}]}}
    async with gateway(TOML, engine="kubernetes", host=config) as gw:
        with anyio.fail_after(LIMIT):
            await terminal(gw, "echo kept > file")
            await admin.call("PATCH", at, opened, "application/merge-patch+json")
            while not holds(await admin.call("GET", at)):
                await anyio.sleep(0.2)
            await admin.call("DELETE", at)
            while POLICY_NAME not in await policies(admin):
                await anyio.sleep(0.2)
            assert (await terminal(gw, "cat file")).stdout == "kept\n"


async def test_another_policy_that_opens_sandboxes_ends_them_and_is_named(
    gateway: GatewayFactory, admin: Api, config: str
) -> None:
    opening = {"metadata": {"name": "allow-dns"}, "spec": {"podSelector": {}, "egress": [{"ports": [{"port": 53}]}]}}
    async with gateway(TOML, engine="kubernetes", host=config) as gw:
        with anyio.fail_after(LIMIT):
            await terminal(gw, "true")
            await admin.call("POST", admin.path("networkpolicies", group=POLICY_GROUP), opening)
            said = ""
            while "The NetworkPolicy allow-dns lets pods of sandboxes reach others" not in said:
                await anyio.sleep(0.2)
                try:
                    await terminal(gw, "true")
                except EngineError as error:
                    said = str(error)
            while await cluster.pods(admin):
                await anyio.sleep(0.2)


async def test_a_namespace_that_went_is_named_and_serves_when_it_is_back(gateway: GatewayFactory, config: str) -> None:
    async with gateway(TOML, engine="kubernetes", host=config) as gw:
        with anyio.fail_after(2 * LIMIT):
            async with cluster.namespace(NAMESPACE):
                await terminal(gw, "true")
            with pytest.raises(EngineError, match=f'namespaces "{NAMESPACE}" not found'):
                await terminal(gw, "true")
            async with cluster.namespace(NAMESPACE) as admin:
                done = await terminal(gw, "echo here")
                assert (done.stdout, len(done.notes)) == ("here\n", 1)
                assert await admin.call("GET", admin.path("networkpolicies", POLICY_NAME, POLICY_GROUP))


def foreign_pod(like: dict[str, Any]) -> dict[str, Any]:
    """A pod of somebody else, with the labels of a sandbox and nothing that a sandbox's pod has beside."""
    container = {"name": "c", "image": "taskcell/base:latest", "imagePullPolicy": "Never", "command": ["sleep", "999"]}
    return {
        "metadata": {"name": "foreign", "labels": like["metadata"]["labels"]},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 0},
    }


async def test_a_foreign_pod_with_a_sandboxs_labels_is_left_alone(
    gateway: GatewayFactory, admin: Api, config: str, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    with anyio.fail_after(LIMIT):
        async with gateway(TOML, engine="kubernetes", host=config, state=state) as gw:
            await terminal(gw, "echo kept > file")
            (pod,) = await cluster.pods(admin)
            await admin.call("POST", admin.path("pods"), foreign_pod(pod))
            assert (await terminal(gw, "cat file")).stdout == "kept\n"
        async with gateway(TOML, engine="kubernetes", host=config, state=state) as gw:
            assert (await terminal(gw, "echo here")).stdout == "here\n"
        assert [one["metadata"]["name"] for one in await cluster.pods(admin)] == ["foreign"]


async def test_labels_and_annotations_that_others_changed_cost_a_running_task_nothing(
    gateway: GatewayFactory, admin: Api, config: str
) -> None:
    async with gateway(TOML, engine="kubernetes", host=config) as gw:
        with anyio.fail_after(LIMIT):
            await terminal(gw, "echo kept > file")
            (pod,) = await cluster.pods(admin)
            change = {"labels": dict.fromkeys(pod["metadata"]["labels"], "other"), "annotations": None}
            path = admin.path("pods", pod["metadata"]["name"])
            await admin.call("PATCH", path, {"metadata": change}, "application/merge-patch+json")
            assert (await terminal(gw, "cat file")).stdout == "kept\n"
            await gw.call(ToolCall("local", "sandbox", {"action": "reset", "task_id": "a"}))
            assert (await terminal(gw, "cat file")).stdout == "kept\n"
            await gw.call(ToolCall("local", "sandbox", {"action": "close", "task_id": "a"}))
            while any(runs(one) for one in (await admin.call("GET", admin.path("pods")))["items"]):
                await anyio.sleep(0.2)


async def test_two_deployments_of_one_namespace_leave_each_other_alone(
    gateway: GatewayFactory, admin: Api, config: str, tmp_path: Path
) -> None:
    def deployment(name: str) -> AbstractAsyncContextManager[Gateway]:
        return gateway(f"deployment = '{name}'\n{TOML}", engine="kubernetes", host=config, state=tmp_path / name)

    with anyio.fail_after(LIMIT):
        async with deployment("one") as one:
            await terminal(one, "echo one > file")
            async with deployment("two") as two:
                assert (await terminal(two, "ls; echo two > file")).stdout == ""
                assert len(await cluster.pods(admin)) == 2
            assert (await terminal(one, "cat file")).stdout == "one\n"
            assert len(await cluster.pods(admin)) == 1


async def test_a_gigabyte_of_output_is_bounded(gateway: GatewayFactory) -> None:
    async with gateway(TOML, engine="kubernetes") as gw:
        with anyio.fail_after(LIMIT):
            done = await terminal(gw, "head -c 1G /dev/zero | tr '\\0' x; echo; echo end")
            assert (done.exit_code, done.truncated, done.stdout[-4:]) == (0, True, "end\n")
            assert len(done.stdout) < 100_000
            assert (await terminal(gw, "echo here")).stdout == "here\n"
