"""Files on disk: a claim for each task, which its pods mount, and which outlives them and their server."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

import cluster
from gateways import GatewayFactory
from pool_slots import POLICY
from taskcell.config.settings import Settings
from taskcell.engine.base import ContainerSpec, Workspace
from taskcell.engine.kubernetes.api import Api
from taskcell.engine.kubernetes.engine import KubernetesEngine
from taskcell.engine.kubernetes.inside import PodCell, is_idle
from taskcell.errors import EngineError, NoRoom
from taskcell.gateway.gateway import Gateway
from taskcell.model import ProcessResult, ToolCall
from taskcell.profile.build import terminal_profile

pytestmark = [pytest.mark.anyio, pytest.mark.kubernetes]

#: Seconds for a test on a busy machine.
LIMIT = 180.0
CLASS = "tc-disks"
STORAGE = "storage.k8s.io/v1"
TOML = f"""
manifests = ['skills.toml']
deployment = 'disks'
[engine]
kind = 'kubernetes'
storage_class = '{CLASS}'
[policy]
allow_unenforced = ['pids']
[workspace]
persistent = true
size = '16m'
"""
SKILL = """
[skills.first]
description = "x"
[skills.first.docker]
image = "taskcell/base:latest"
user = "2000:2000"
entrypoint = ["sh", "-c"]
"""
NAMESPACE = "tc-disks"


async def call(gw: Gateway, tool: str, task: str = "a", **arguments: object) -> ProcessResult:
    return await gw.call(ToolCall("local", tool, {"task_id": task, **arguments}))


@asynccontextmanager
async def storage(count: int, *objects: tuple[str, str, dict[str, Any]]) -> AsyncIterator[Api]:
    """A namespace, and a StorageClass of some folders of the nodes, which are the machine's; both go afterwards."""
    admin = cluster.api()
    above = Path(tempfile.mkdtemp(prefix="disks-", dir=cluster.folder()))
    folders = [above / str(number) for number in range(count)]
    paths = [f"/apis/{STORAGE}/storageclasses", "/api/v1/persistentvolumes"]
    own = {"metadata": {"name": CLASS}, "provisioner": "kubernetes.io/no-provisioner"}
    try:
        await admin.call("POST", paths[0], own)
        for folder in folders:
            folder.mkdir()
            folder.chmod(0o777)  # a kubelet gives no folder of its node to a group, as it does with other volumes
            body = {
                "metadata": {"name": f"{CLASS}-{secrets.token_hex(4)}", "labels": {"tests": CLASS}},
                "spec": {
                    "storageClassName": CLASS,
                    "capacity": {"storage": "32Mi"},
                    "accessModes": ["ReadWriteOnce"],
                    "hostPath": {"path": str(folder)},
                },
            }
            await admin.call("POST", paths[1], body)
        async with cluster.namespace(NAMESPACE, *objects) as own_admin:
            yield own_admin
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(cluster.CLUSTER_TIMEOUT):
            await admin.call("DELETE", paths[1], labelSelector=f"tests={CLASS}")
            await admin.call("DELETE", f"{paths[0]}/{CLASS}")
            await admin.aclose()
        shutil.rmtree(above)


async def pods(admin: Api) -> list[dict[str, Any]]:
    found = await admin.call("GET", admin.path("pods"), labelSelector="taskcell.dev/sandbox=1")
    return [one for one in found["items"] if not one["metadata"].get("deletionTimestamp")]


async def claims(admin: Api) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await admin.call("GET", admin.path("persistentvolumeclaims")))["items"]
    return found


async def test_files_on_disk_outlive_sandboxes_servers_and_pods_until_they_are_purged(
    gateway: GatewayFactory, tmp_path: Path
) -> None:
    (tmp_path / "skills.toml").write_text(SKILL)
    async with storage(1) as admin:
        config = cluster.config(tmp_path / "k", NAMESPACE)
        more: dict[str, Any] = {"engine": "kubernetes", "host": config, "state": tmp_path / "s"}
        with anyio.fail_after(LIMIT):
            async with gateway(TOML, **more) as gw:
                await call(gw, "terminal", command="echo one > file; mkdir d")
                # Another user writes in it, too, beside the terminal in the same pod.
                done = await call(gw, "first", args=["cat file; echo two >> file; echo three > d/f; ls -a"])
                assert done.stdout == "one\n.\n..\nd\nfile\n"
                (pod,) = await pods(admin)
                await call(gw, "sandbox", action="reset")
                assert (await call(gw, "terminal", command="cat file d/f")).stdout == "one\ntwo\nthree\n"
                (after,) = [one for one in await pods(admin) if one["metadata"]["uid"] != pod["metadata"]["uid"]]
                assert after["spec"]["nodeName"] == pod["spec"]["nodeName"]
                await call(gw, "sandbox", action="close")
                while await pods(admin):
                    await anyio.sleep(0.1)
                (claim,) = await claims(admin)
                assert claim["spec"]["resources"]["requests"]["storage"] == str(16 << 20)
                assert claim["spec"]["storageClassName"] == CLASS
            async with gateway(TOML, **more) as gw:
                done = await call(gw, "terminal", command="rm -r d; cat file")
                assert done.stdout == "one\ntwo\n"
            engine = KubernetesEngine(cluster.api(config), CLASS)
            name = claim["metadata"]["name"]
            await engine.remove_workspace(name)
            await engine.remove_workspace(name)
            await engine.aclose()
            while await claims(admin):
                await anyio.sleep(0.1)


def spec(pod_name: str, **changes: Any) -> ContainerSpec:
    """A sandbox that has been made room for in no other one's pod."""
    plain = replace(terminal_profile(Settings()), **changes)
    labels = {"taskcell": "1", "taskcell.deployment": "tests", "taskcell.instance": "i"}
    return ContainerSpec(
        POLICY.authorize_profile(plain),
        pod_name,
        Workspace(16 << 20, "taskcell-data-tests-1", persistent=True),
        labels,
        60.0,
        allow_unenforced=frozenset({"pids"}),
    )


async def test_pods_of_one_task_share_its_claim_and_its_node(tmp_path: Path) -> None:
    async with storage(1) as admin:
        engine = KubernetesEngine(cluster.api(cluster.config(tmp_path / "k", NAMESPACE)), CLASS)
        with anyio.fail_after(LIMIT):
            first = await engine.start(spec("taskcell-one"))
            # No container was made for it, so that it gets a pod of its own beside the first.
            second = await engine.start(spec("taskcell-two", name="second", kind="skill", entrypoint=("x",)))
            both = await pods(admin)
            assert {one["metadata"]["name"] for one in both} == {"taskcell-one", "taskcell-two"}
            assert len({one["spec"]["nodeName"] for one in both}) == 1
            assert (first.is_fresh, second.is_fresh) == (True, False)
            assert first.volume == second.volume == "taskcell-data-tests-1"
            # A claim that is deleted stays for as long as a pod has it; the task's next files are others.
            await engine.remove_workspace(first.volume)
            (claim,) = await claims(admin)
            assert claim["metadata"]["deletionTimestamp"]
            await engine.remove(first)
            await engine.remove(second)
            while await pods(admin) or await claims(admin):
                await anyio.sleep(0.1)
            await engine.aclose()


async def test_a_released_pod_is_taken_again_and_one_that_is_to_be_deleted_is_not(tmp_path: Path) -> None:
    beside = POLICY.authorize_profile(
        replace(terminal_profile(Settings()), name="second", kind="skill", entrypoint=("x",))
    )
    async with storage(1) as admin:
        engine = KubernetesEngine(cluster.api(cluster.config(tmp_path / "k", NAMESPACE)), CLASS)
        with anyio.fail_after(LIMIT):
            asked = replace(spec("taskcell-one"), siblings=lambda: [beside])
            first = await engine.start(asked)
            second = await engine.start(replace(asked, profile=beside, name="taskcell-two"))
            assert second.id.split("/")[:2] == first.id.split("/")[:2]
            at = PodCell("taskcell-one", second.id.split("/")[2])
            await engine.remove(second)
            assert await is_idle(admin, at)
            again = await engine.start(replace(asked, profile=beside, name="taskcell-three"))
            assert again.id == second.id
            await engine.remove(again)
            await engine.remove(first)
            while (found := await admin.call("GET", admin.path("pods")))["items"]:
                (pod,) = found["items"]
                assert "!" in pod["metadata"]["annotations"]["taskcell.dev/cells"]
                await anyio.sleep(0.1)
            await engine.remove_workspace(first.volume)
            await engine.aclose()


async def test_what_the_cluster_does_not_give_is_named(tmp_path: Path) -> None:
    quota = {"metadata": {"name": "q"}, "spec": {"hard": {"persistentvolumeclaims": "0"}}}
    async with storage(0, ("", "resourcequotas", quota)) as admin:
        with anyio.fail_after(LIMIT):
            while "hard" not in (await admin.call("GET", admin.path("resourcequotas", "q"))).get("status", {}):
                await anyio.sleep(0.1)
            engine = KubernetesEngine(cluster.api(cluster.config(tmp_path / "k", NAMESPACE)), CLASS)
            with pytest.raises(NoRoom, match="no room for a task's files"):
                await engine.start(spec("taskcell-one"))
            assert await pods(admin) == []
            await engine.aclose()
            lacking = KubernetesEngine(cluster.api(await cluster.account(admin, "nobody", tmp_path / "n")), CLASS)
            with pytest.raises(EngineError, match="may not create persistentvolumeclaims, delete persistentvolumecl"):
                await lacking.bounds_volumes(1)
            await lacking.aclose()
