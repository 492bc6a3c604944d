"""What goes wrong around a pod, on a real cluster whose folder `TASKCELL_TEST_CLUSTER` names."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

import cluster
from cluster import Program
from gateways import GatewayFactory
from taskcell.engine.kubernetes.engine import KubernetesEngine
from taskcell.engine.kubernetes.rights import RIGHTS
from taskcell.errors import EngineError, EngineUnavailable, ImageMissing, NoRoom
from taskcell.gateway.gateway import Gateway
from taskcell.model import ProcessResult, ToolCall
from taskcell.supervisor.link import PATIENCE

pytestmark = [pytest.mark.anyio, pytest.mark.kubernetes]

#: A pod has no bound of its own on processes.
TOML = "manifests = []\n[policy]\nallow_unenforced = ['pids']\n"
#: Seconds that something is away, and that a call may take with that.
AWAY, LIMIT = 4.0, 120.0
#: Seconds beyond those that calls wait, and within those that a sandbox lives without its server.
LONGER = 20.0
SMALL = TOML + "[terminal]\nmemory = '256m'\n[workspace]\nsize = '16m'\n"
RBAC = "rbac.authorization.k8s.io/v1"


async def terminal(gw: Gateway, command: str, task: str = "a", **arguments: object) -> ProcessResult:
    return await gw.call(ToolCall("local", "terminal", {"command": command, "task_id": task, **arguments}))


# --- what goes away for a while ---------------------------------------------------------------------------------------


@contextmanager
def api_server_killed() -> Iterator[None]:
    program = Program("apiserver")
    program.kill()
    try:
        yield
    finally:
        program.start()


def api_server_slow() -> AbstractContextManager[None]:
    return Program("apiserver").stopped()


@contextmanager
def kubelet_killed() -> Iterator[None]:
    cluster.restart_kubelet(1)
    yield


def node_cut_off() -> AbstractContextManager[None]:
    return cluster.cut_off(1)


@pytest.mark.parametrize("fault", [api_server_killed, api_server_slow])
async def test_an_api_that_is_away_for_longer_than_calls_wait_costs_no_files_and_ends_no_command(
    gateway: GatewayFactory, fault: Callable[[], AbstractContextManager[None]]
) -> None:
    async with gateway(TOML, engine="kubernetes") as gw:
        with anyio.fail_after(3 * LIMIT):
            await terminal(gw, "echo kept > file; export A=1")
            begun = await terminal(gw, "until [ -e over ]; do sleep 0.1; done; echo ended", background=True)
            with fault():
                await anyio.sleep(PATIENCE + LONGER)
            while True:
                try:
                    after = await terminal(gw, "cat file; echo $A; touch over")
                except EngineUnavailable:
                    await anyio.sleep(1)
                else:
                    break
            assert after.stdout == "kept\n1\n", after.notes
            wait = {"action": "wait", "process_id": begun.process_id, "task_id": "a", "wait": 60}
            ended = (await gw.call(ToolCall("local", "process", wait))).result
            assert (ended.status.value, ended.stdout) == ("exited", "ended\n")


@pytest.mark.parametrize("fault", [api_server_killed, api_server_slow, kubelet_killed, node_cut_off])
async def test_what_comes_back_costs_a_running_command_nothing(
    gateway: GatewayFactory, fault: Callable[[], AbstractContextManager[None]]
) -> None:
    results: list[ProcessResult] = []
    async with gateway(TOML, engine="kubernetes") as gw:
        await terminal(gw, "echo kept > file; export A=1")

        async def long() -> None:
            results.append(await terminal(gw, "echo ran >> runs; for i in $(seq 10); do echo $i; sleep 0.6; done"))

        with anyio.fail_after(LIMIT):
            async with anyio.create_task_group() as calls:
                calls.start_soon(long)
                while (await terminal(gw, "cat runs")).stdout != "ran\n":
                    await anyio.sleep(0.05)
                with fault():
                    await anyio.sleep(AWAY)
                after = await terminal(gw, "cat file runs; echo $A")
        assert results[0].stdout.split() == [str(number) for number in range(1, 11)]
        assert (results[0].status.value, after.stdout, after.notes) == ("exited", "kept\nran\n1\n", ())


@pytest.mark.parametrize("fault", [api_server_killed, api_server_slow])
async def test_a_call_that_needs_a_pod_waits_for_the_api_server(
    gateway: GatewayFactory, fault: Callable[[], AbstractContextManager[None]]
) -> None:
    async with gateway(TOML, engine="kubernetes") as gw:
        await terminal(gw, "true")
        results: list[str] = []

        async def second() -> None:
            results.append((await terminal(gw, "echo here", "b")).stdout)

        with anyio.fail_after(LIMIT):
            async with anyio.create_task_group() as calls:
                with fault():
                    calls.start_soon(second)
                    await anyio.sleep(AWAY)
        assert results == ["here\n"]


# --- what ends a pod --------------------------------------------------------------------------------------------------


@asynccontextmanager
async def evicted(admin: Any, pod: dict[str, Any]) -> AsyncIterator[None]:
    name = pod["metadata"]["name"]
    body = {"apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": {"name": name}}
    await admin.call("POST", admin.path("pods", name) + "/eviction", body)
    yield


@asynccontextmanager
async def deleted(admin: Any, pod: dict[str, Any]) -> AsyncIterator[None]:
    await admin.call("DELETE", admin.path("pods", pod["metadata"]["name"]))
    yield


@pytest.mark.parametrize("end", [evicted, deleted])
async def test_a_pod_that_is_taken_away_loses_a_command_and_keeps_the_saved_files(
    gateway: GatewayFactory, tmp_path: Path, end: Callable[[Any, dict[str, Any]], Any]
) -> None:
    results: list[ProcessResult] = []
    async with (
        cluster.namespace("tc-ends") as admin,
        gateway(TOML, engine="kubernetes", host=cluster.config(tmp_path / "k", "tc-ends"), state=tmp_path / "s") as gw,
    ):
        await terminal(gw, "echo kept > file")
        await gw.call(ToolCall("local", "sandbox", {"action": "snapshot", "task_id": "a", "name": "one"}))

        async def long() -> None:
            results.append(await terminal(gw, "echo begun > begun; echo out; sleep 100"))

        with anyio.fail_after(LIMIT):
            async with anyio.create_task_group() as calls:
                calls.start_soon(long)
                while (await terminal(gw, "cat begun")).stdout != "begun\n":
                    await anyio.sleep(0.05)
                (pod,) = await cluster.pods(admin)
                async with end(admin, pod):
                    pass
            after = await terminal(gw, "echo again")
        assert results[0].status.value in ("lost", "killed")
        assert "out" in results[0].stdout
        assert after.stdout == "again\n"


async def test_a_command_that_runs_out_of_memory_ends_and_the_task_goes_on(gateway: GatewayFactory) -> None:
    async with gateway(SMALL, engine="kubernetes") as gw:
        with anyio.fail_after(LIMIT):
            done = await terminal(gw, "tail /dev/zero")
            assert done.status.value in ("oom_killed", "exited")
            assert done.exit_code == 137
            assert (await terminal(gw, "echo here")).stdout == "here\n"


# --- what the cluster refuses -----------------------------------------------------------------------------------------


async def test_a_full_quota_says_that_there_is_no_room_and_an_end_makes_some(
    gateway: GatewayFactory, tmp_path: Path
) -> None:
    quota = {"metadata": {"name": "few"}, "spec": {"hard": {"pods": "1"}}}
    async with (
        cluster.namespace("tc-quota", ("", "resourcequotas", quota)),
        gateway(TOML, engine="kubernetes", host=cluster.config(tmp_path / "k", "tc-quota")) as gw,
    ):
        with anyio.fail_after(LIMIT):
            await terminal(gw, "true")
            with pytest.raises(NoRoom, match="quota has no room"):
                await terminal(gw, "true", "b")
            assert (await terminal(gw, "echo here")).stdout == "here\n"
            await gw.call(ToolCall("local", "sandbox", {"action": "close", "task_id": "a"}))
            while True:
                try:
                    assert (await terminal(gw, "echo there", "b")).stdout == "there\n"
                    break
                except NoRoom:  # the pod's object stays for some seconds
                    await anyio.sleep(0.5)


async def test_an_image_that_no_node_can_get_is_named(gateway: GatewayFactory) -> None:
    async with gateway(TOML + "[terminal]\nimage = 'none.invalid/none:1'\n", engine="kubernetes") as gw:
        with anyio.fail_after(LIMIT), pytest.raises(ImageMissing, match=r"none\.invalid/none:1"):
            await terminal(gw, "true")


def role(*without: tuple[str, str]) -> dict[str, Any]:
    rules = [
        {"apiGroups": [group], "resources": [name + (part and f"/{part}")],
         "verbs": [verb for verb in verbs if (name + (part and f"/{part}"), verb) not in without]}
        for group, name, part, verbs in RIGHTS
    ]  # fmt: skip
    return {"metadata": {"name": "taskcell"}, "rules": rules}


BINDING = {
    "metadata": {"name": "taskcell"},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "taskcell"},
    "subjects": [{"kind": "ServiceAccount", "name": "taskcell", "namespace": "tc-rights"}],
}


async def test_an_account_with_the_documented_rights_is_enough(gateway: GatewayFactory, tmp_path: Path) -> None:
    async with cluster.namespace("tc-rights", (RBAC, "roles", role()), (RBAC, "rolebindings", BINDING)) as admin:
        path = await cluster.account(admin, "taskcell", tmp_path / "k")
        engine = KubernetesEngine(cluster.api(path))
        assert (await engine.facts()).faults == ()
        await engine.aclose()
        async with gateway(TOML, engine="kubernetes", host=path, state=tmp_path / "state") as gw:
            with anyio.fail_after(LIMIT):
                assert (await terminal(gw, "echo here > f; cat f")).stdout == "here\n"
                await gw.call(ToolCall("local", "sandbox", {"action": "fork", "task_id": "a", "to": "b"}))
                assert (await terminal(gw, "cat f", "b")).stdout == "here\n"


async def test_a_verb_that_is_missing_is_named_by_doctor_and_at_the_call(
    gateway: GatewayFactory, tmp_path: Path
) -> None:
    lacking = role(("pods", "create"), ("pods/exec", "get"))
    async with cluster.namespace("tc-rights", (RBAC, "roles", lacking), (RBAC, "rolebindings", BINDING)) as admin:
        path = await cluster.account(admin, "taskcell", tmp_path / "k")
        engine = KubernetesEngine(cluster.api(path))
        (fault,) = (await engine.facts()).faults
        await engine.aclose()
        assert "may not create pods, get pods/exec in the namespace tc-rights" in fault
        async with gateway(TOML, engine="kubernetes", host=path) as gw:
            with anyio.fail_after(LIMIT), pytest.raises(EngineError, match=r"cannot create .*lacks this right"):
                await terminal(gw, "true")


async def test_an_etcd_that_is_full_stops_no_command_and_is_named(gateway: GatewayFactory) -> None:
    async with gateway(TOML, engine="kubernetes") as gw:
        await terminal(gw, "echo kept > file")
        with anyio.fail_after(LIMIT):
            with cluster.full_etcd():
                assert (await terminal(gw, "cat file")).stdout == "kept\n"
                with pytest.raises(EngineError, match="space exceeded"):
                    await terminal(gw, "true", "b")
            assert (await terminal(gw, "echo here", "b")).stdout == "here\n"
