"""Pods whose containers are processes of this machine: what a cluster's nodes do, for tests of what its servers do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio.abc

from taskcell.engine.base import Container, ContainerSpec, ListedContainer, Standing
from taskcell.engine.kubernetes import pod, status
from taskcell.engine.kubernetes.api import Api
from taskcell.engine.kubernetes.pods import Pods
from taskcell.engine.local import LocalEngine
from taskcell.policy.policy import AuthorizedProfile


class LocalNodes:
    """Where the processes run. They outlive the servers that have them started."""

    def __init__(self) -> None:
        self.engine = LocalEngine()
        self.containers: dict[str, Container] = {}


class LocalPods(LocalEngine):
    """One server's way to its pods; it ends none that another server has.

    Arguments:
        api: of that server.
    """

    def __init__(self, nodes: LocalNodes, api: Api) -> None:
        self._folder, self._processes = nodes.engine._folder, nodes.engine._processes
        self._containers = nodes.containers
        self._api, self._pods, self._owner = api, Pods(api), ""

    async def own_only(self, instance: str) -> None:
        self._owner = instance

    async def start(self, spec: ContainerSpec) -> Container:
        local, cell = await super().start(spec), pod.cell_of(spec.profile)
        annotations = {"taskcell.dev/name": "", pod.CELLS: cell}
        made = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": spec.name, "labels": pod.labels(spec), "annotations": annotations},
            "spec": {"containers": [{"name": cell}]},
            "status": {"phase": "Running", "containerStatuses": [{"name": cell, "state": {"running": {}}}]},
        }
        found = await self._api.call("POST", self._api.path("pods"), made)
        container = replace(local, id=status.id_of(found, cell), is_contended=True)
        self._containers[container.id] = local
        return container

    async def find(self, container_id: str, profile: AuthorizedProfile) -> Container | None:
        found = await self._pods.look(container_id)
        local = self._containers.get(container_id)
        return None if found is None or local is None else replace(local, id=container_id, is_fresh=False)

    async def assign(self, container: Container, name: str) -> Container:
        await self._pods.assign(container.id, name, self._owner)
        return replace(container, name=name, is_contended=False)

    async def containers(self, deployment: str) -> Sequence[ListedContainer]:
        found = await self._api.call("GET", self._api.path("pods"))
        return [one for each in found["items"] for one in status.listed(each)]

    async def stop(self, container_id: str) -> None:
        local = self._containers.get(container_id)
        if local is not None:
            await self.remove(replace(local, id=container_id))

    async def remove(self, container: Container, *, keep: bool = False) -> None:
        found = await self._pods.look(container.id)
        if found is None or status.owner_of(found) != self._owner:
            return
        await self._pods.delete(found["metadata"]["name"], found["metadata"]["uid"], 1)
        local = self._containers.pop(container.id, None)
        if local is not None:
            await super().remove(local)

    async def standing(self, container: Container) -> Standing:
        local = self._containers.get(container.id)
        return Standing.ENDED if local is None else await super().standing(local)

    async def why_dead(self, container: Container) -> str:
        local = self._containers.get(container.id)
        return "Its pod was removed." if local is None else await super().why_dead(local)

    @asynccontextmanager
    async def connect(self, container: Container) -> AsyncIterator[anyio.abc.ByteStream]:
        async with super().connect(self._containers.get(container.id, container)) as stream:
            yield stream

    async def aclose(self) -> None:
        """The processes are the nodes'."""
