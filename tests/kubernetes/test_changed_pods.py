"""Clusters that change pods when they are made: what is harmless works, and what breaks a promise is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

import cluster
from admission import changed_by
from gateways import GatewayFactory
from taskcell.errors import EngineError
from taskcell.gateway.gateway import Gateway
from taskcell.model import ProcessResult, ToolCall

pytestmark = [pytest.mark.anyio, pytest.mark.kubernetes]

#: Seconds for a test on a busy machine.
LIMIT = 120.0
NAMESPACE = "tc-changed"
TOML = "manifests = []\n[policy]\nallow_unenforced = ['pids']\n[terminal]\nmemory = '128m'\n[workspace]\nsize = '16m'\n"


def added(path: str, value: Any) -> dict[str, Any]:
    return {"op": "add", "path": path, "value": value}


def container(name: str, *command: str) -> dict[str, Any]:
    return {"name": name, "image": "taskcell/base:latest", "imagePullPolicy": "Never", "command": command}


MESH = [
    added("/spec/containers/0", container("mesh-proxy", "sh", "-c", "exit 1")),
    added("/spec/initContainers", [container("mesh-init", "true")]),
    added("/metadata/labels/mesh.test~1revision", "1"),
    added("/metadata/annotations/mesh.test~1status", "{}"),
    added("/spec/tolerations/0", {"operator": "Exists"}),
    added("/spec/volumes/0", {"name": "mesh-token", "emptyDir": {}}),
]
LIMITS = {
    "metadata": {"name": "limits"},
    "spec": {"limits": [{"type": "Container", "default": {"cpu": "1", "memory": "64Mi"}, "max": {"memory": "256Mi"}}]},
}


async def terminal(gw: Gateway, command: str) -> ProcessResult:
    return await gw.call(ToolCall("local", "terminal", {"command": command, "task_id": "a"}))


async def test_a_crashing_sidecar_an_init_container_and_default_limits_do_not_matter(
    gateway: GatewayFactory, tmp_path: Path
) -> None:
    async with (
        cluster.namespace(NAMESPACE, ("", "limitranges", LIMITS)) as admin,
        changed_by(admin, MESH, tmp_path),
        gateway(TOML, engine="kubernetes", host=cluster.config(tmp_path / "k", NAMESPACE)) as gw,
    ):
        with anyio.fail_after(LIMIT):
            assert (await terminal(gw, "echo kept > file; id -u")).stdout == "1000\n"
            while not any(one.get("restartCount") for one in await statuses(admin)):
                await anyio.sleep(0.2)
            assert (await terminal(gw, "cat file")).stdout == "kept\n"
            await gw.call(ToolCall("local", "sandbox", {"action": "close", "task_id": "a"}))
            while await cluster.pods(admin):
                await anyio.sleep(0.2)


async def statuses(admin: Any) -> list[dict[str, Any]]:
    return [one for pod in await cluster.pods(admin) for one in pod["status"].get("containerStatuses", ())]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (added("/spec/shareProcessNamespace", True), "it has shareProcessNamespace"),
        (
            {"op": "remove", "path": "/spec/containers/0/securityContext/readOnlyRootFilesystem"},
            "that has readOnlyRootFilesystem None",
        ),
        (
            added("/spec/automountServiceAccountToken", True),
            "has the volume 'default-token-[a-z0-9]+' at ",
        ),
    ],
    ids=["shared processes", "a writable root", "a token"],
)
async def test_what_breaks_a_promise_is_refused_and_leaves_no_pod(
    gateway: GatewayFactory, tmp_path: Path, change: dict[str, Any], why: str
) -> None:
    async with (
        cluster.namespace(NAMESPACE) as admin,
        changed_by(admin, [change], tmp_path),
        gateway(TOML, engine="kubernetes", host=cluster.config(tmp_path / "k", NAMESPACE)) as gw,
    ):
        with anyio.fail_after(LIMIT):
            with pytest.raises(EngineError, match=why):
                await terminal(gw, "true")
            while (await admin.call("GET", admin.path("pods")))["items"]:
                await anyio.sleep(0.2)
