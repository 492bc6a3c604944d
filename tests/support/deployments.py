"""Deployments for tests, as a folder of one machine has them and as a cluster has them; their servers die at once."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from api_server import ApiServer, api_server
from taskcell.deployment.base import Deployment
from taskcell.deployment.cluster.deployment import ClusterDeployment
from taskcell.deployment.cluster.members import TERM
from taskcell.deployment.cluster.task_leases import TaskLeases
from taskcell.deployment.folder import FolderDeployment
from taskcell.deployment.records import SandboxRecord
from taskcell.deployment.state_folder import StateFolder
from taskcell.engine.kubernetes.api import Api
from taskcell.model import TaskKey


class Deployments(Protocol):
    """The servers of one deployment."""

    async def join(self, name: str) -> Deployment:
        """One more server."""

    async def sandbox(self, server: Deployment, task: str, number: int = 1, **changes: Any) -> SandboxRecord:
        """What a server writes about a sandbox that its engine has."""

    async def kill(self, server: Deployment) -> None:
        """The server dies without a word, and the others can know it."""


def a_record(container: str, task: str, **changes: Any) -> SandboxRecord:
    """A sandbox of a task of `local`; no task has it where that is empty."""
    return SandboxRecord(
        container=container,
        name="taskcell-1",
        principal="local" if task else "",
        task=task,
        profile="terminal",
        fingerprint="f",
        nonce="n",
        workspace="w",
        is_owner=False,
        is_in_memory=True,
        created=1000.5,
        **changes,
    )


class InFolder:
    """Servers of one machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def join(self, name: str) -> Deployment:
        server = FolderDeployment(StateFolder(self.folder))
        await server.join(name)
        return server

    async def sandbox(self, server: Deployment, task: str, number: int = 1, **changes: Any) -> SandboxRecord:
        return a_record(f"{server.instance}-{number}", task, **changes)

    async def kill(self, server: Deployment) -> None:
        assert server.state._lock is not None
        os.close(server.state._lock)  # as the kernel does


class Clock:
    """A clock that stands still until it is set forward."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class OnCluster:
    """Servers of a cluster. Time passes for all of them alike, and all but the dead renew their Leases then."""

    def __init__(self, server: ApiServer) -> None:
        self.server = server
        self.clock = Clock()
        self.living: dict[str, ClusterDeployment] = {}
        self.apis: list[Api] = [server.api()]

    async def join(self, name: str) -> ClusterDeployment:
        made = self.make(name, f"http://{name}.test:8765")
        await made.join(name)
        self.living[name] = made
        for other in self.living.values():
            await other.members.look()
        return made

    def make(self, name: str, url: str, deployment: str = "test", **places: Path | None) -> ClusterDeployment:
        """A server's side of the deployment, which has not joined. `places`: as `ClusterDeployment` has them."""
        self.apis.append(self.server.api(name))
        return ClusterDeployment(self.apis[-1], deployment, url, self.clock, **places)

    async def sandbox(self, server: Deployment, task: str, number: int = 1, **changes: Any) -> SandboxRecord:
        name = f"taskcell-{server.instance}-{number}"
        pod = await self.pod(server.instance, name)
        return a_record(f"{name}/{pod['metadata']['uid']}/c-terminal/0", task, **changes)

    async def pod(self, instance: str, name: str) -> dict[str, Any]:
        """A pod as the engine makes it for a server; nothing is written about it yet."""
        labels = {"taskcell.dev/deployment": "test", "taskcell.dev/instance": instance}
        meta = {"name": name, "labels": labels, "annotations": {"taskcell.dev/name": ""}}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {}}
        api = self.apis[0]
        return await api.call("POST", api.path("pods"), body)

    async def kill(self, server: Deployment) -> None:
        del self.living[server.instance]
        await self.pass_time(2 * TERM)  # its last renewal may not have been seen yet

    async def pass_time(self, seconds: float) -> None:
        """Let time pass, in steps that are short enough for those that live."""
        for _ in range(4):
            self.clock.now += seconds / 4
            for one in self.living.values():
                await one.renew()
                await one.members.look()

    async def close(self) -> None:
        for api in self.apis:
            await api.aclose()


@asynccontextmanager
async def on_cluster() -> AsyncIterator[OnCluster]:
    async with api_server() as server:
        cluster = OnCluster(server)
        try:
            yield cluster
        finally:
            await cluster.close()


def tasks(*names: str) -> Sequence[TaskKey]:
    return [TaskKey("local", name) for name in names]


def claims_of(server: ClusterDeployment) -> TaskLeases:
    assert server.claims is not None
    return server.claims
