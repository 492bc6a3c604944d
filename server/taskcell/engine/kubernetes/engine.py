"""The Kubernetes engine: pods by HTTP, channels by pods/exec."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, BinaryIO
from weakref import WeakValueDictionary

import anyio
import anyio.abc

from taskcell.engine.base import Container, ContainerSpec, EngineFacts, ListedContainer, ListedVolume, Standing
from taskcell.engine.kubernetes import inside, pod, rights, status
from taskcell.engine.kubernetes.api import Api
from taskcell.engine.kubernetes.disks import Disks
from taskcell.engine.kubernetes.exec_stream import open_pod_exec
from taskcell.engine.kubernetes.guard import Guard
from taskcell.engine.kubernetes.inside import PodCell
from taskcell.engine.kubernetes.network import Wall
from taskcell.engine.kubernetes.pods import Pods
from taskcell.engine.kubernetes.starter import Starter, place_of
from taskcell.errors import EngineError, SandboxLost
from taskcell.policy.policy import AuthorizedProfile

_RIGHTS = (
    "The server's account may not {rights} in the namespace {namespace}: give it a Role with these verbs "
    "(docs/engines.md has all that it needs)."
)


class KubernetesEngine:
    """Makes sandboxes as pods in one namespace.

    Arguments:
        storage_class: of files on disk; empty means the cluster's default.
    """

    #: A cluster pulls images; it builds none.
    images = None

    def __init__(self, api: Api, storage_class: str = "") -> None:
        self._api = api
        self._disks = Disks(api, storage_class)
        self._facts: EngineFacts | None = None
        self._pods = Pods(api)
        self._wall = Wall(api)
        self._guard = Guard(self._pods, self._wall)
        self._starter = Starter(api, self._pods, self._wall, self._disks)
        self._owner = ""
        self._turns: WeakValueDictionary[str, anyio.Lock] = WeakValueDictionary()

    async def facts(self) -> EngineFacts:
        if self._facts is None:
            version = (await self._api.call("GET", "/version")).get("gitVersion", "?")
            weaknesses = (
                "Kubernetes bounds processes for all pods of a node alike (podPidsLimit of its kubelet): a profile's "
                "`pids` has no effect.",
                "A sandbox has no network only where the cluster's network enforces NetworkPolicies; the first pod on "
                "each node looks.",
            )
            lacking, namespace = await rights.missing_rights(self._api), self._api.cluster.namespace
            faults = (_RIGHTS.format(namespace=namespace, rights=", ".join(lacking)),) if lacking else ()
            self._facts = EngineFacts("Kubernetes", str(version), isolated=True, weaknesses=weaknesses, faults=faults)
        return self._facts

    # --- making --------------------------------------------------------------------------------------------------

    async def start(self, spec: ContainerSpec) -> Container:
        refused = list(pod.impossible(spec.profile))
        if spec.workspace.folder:
            refused.append(
                "its files are to be in a folder of the host (workspace.root), and a pod may run on any node"
            )
        if refused:
            raise EngineError(f"The profile '{spec.profile.name}' cannot run on Kubernetes: {'; '.join(refused)}.")
        if "pids" not in spec.allow_unenforced and spec.profile.pids:
            raise EngineError(
                "Kubernetes bounds the number of processes by node (podPidsLimit of its kubelets) and not by pod, so "
                "that `pids` has no effect. The operator can allow that: policy.allow_unenforced = ['pids']."
            )
        await self._wall.make()
        if not spec.workspace.name:
            return await self._starter.in_new_pod(spec)
        # Of two that need a new pod for the same files, the second one goes into the first one's.
        async with self._turns.setdefault(spec.workspace.name, anyio.Lock()):
            return await self._starter.in_pod_of_task(spec) or await self._starter.in_new_pod(spec)

    # --- finding -------------------------------------------------------------------------------------------------

    async def find(self, container_id: str, profile: AuthorizedProfile) -> Container | None:
        _, _, cell, restarts = container_id.split("/")
        found = await self._pods.look(container_id)
        if found is None or status.standing_of_cell(found, cell, int(restarts)) is Standing.ENDED:
            return None
        return await self._starter.described(found, profile, is_fresh=False)

    async def image_id(self, profile: AuthorizedProfile) -> str:
        """The reference: no API says which image a node would take for it. One with a digest is its own id."""
        return profile.image

    async def assign(self, container: Container, name: str) -> Container:
        """Pods keep their names; an annotation has the new one."""
        await self._pods.assign(container.id, name, self._owner)
        return replace(container, name=name, is_contended=False)

    async def containers(self, deployment: str) -> Sequence[ListedContainer]:
        selector = f"{pod.LABEL_PREFIX}deployment={pod.label(deployment)}"
        if self._owner:  # other servers look after theirs, of which there may be thousands
            selector += f",{pod.LABEL_PREFIX}instance={self._owner}"
        found = await self._api.call("GET", self._api.path("pods"), labelSelector=selector)
        return [container for one in status.items_of(found) for container in status.listed(status.as_pod(one))]

    async def standing(self, container: Container) -> Standing:
        found = await self._pods.look(container.id)
        _, _, cell, restarts = container.id.split("/")
        if found is None:
            return Standing.ENDED
        if status.runs(found) and pod.OPEN_NETWORK not in status.annotations_of(found):
            await self._pods.restore_label(found)
        return status.standing_of_cell(found, cell, int(restarts))

    async def why_dead(self, container: Container) -> str:
        if why := self._guard.ended.get("/".join(container.id.split("/")[:2])):
            return why
        try:
            found = await self._pods.look(container.id)
        except EngineError as error:
            return str(error)
        return "Its pod was removed." if found is None else status.why_ended(found, place_of(container).cell)

    async def memory(self, container: Container) -> int | None:
        """None: that is in the metrics of the cluster, which need not be there."""
        return None

    async def follow(self, instance: str, ended: Callable[[str], None]) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(self._guard.run)
            await self._pods.watch.run(pod.label(instance), ended)

    # --- ending --------------------------------------------------------------------------------------------------

    async def own_only(self, instance: str) -> None:
        """End no pod from now on that another server has: one may have taken it while this one was away."""
        self._owner = pod.label(instance)

    def _is_others(self, found: dict[str, Any]) -> bool:
        return bool(self._owner) and status.owner_of(found) != self._owner

    async def stop(self, container_id: str) -> None:
        await self._end(container_id, pod.POD_GRACE)

    async def remove(self, container: Container, *, keep: bool = False) -> None:
        """Returns when the removal has begun: the pod's object stays for some seconds after its processes."""
        # Not 0: that takes it out of the API at once, and nobody then knows whether its processes have ended.
        await self._end(container.id, 1)

    async def _end(self, container_id: str, grace: int) -> None:
        """Leave a container to the task's next sandbox of its profile; the pod goes with the last one.

        One whose supervisor does not begin anew is left as it is, and never used again.

        A container that has ended by itself is started again by the kubelet, beside the same files: its pod stays for
        the task, and goes with its workspace.
        """
        name, uid, cell, restarts = container_id.split("/")
        found = await self._pods.look(container_id)
        if found is None or self._is_others(found):
            return
        is_over = (
            status.standing_of_cell(found, cell, int(restarts)) is Standing.ENDED or container_id in self._starter.ended
        )
        has_ended = status.runs(found) and is_over
        self._starter.ended.discard(container_id)
        if container_id in self._starter.followed:
            self._starter.followed.discard(container_id)
            return
        others = [one for one in status.cells_in_use(found) if one != cell and not one.endswith(pod.SPOILT)]
        is_left = bool(others) and status.runs(found) and not has_ended
        if is_left and not await self._starter.is_idle(PodCell(name, cell)):
            await self._pods.spoil(found, cell)
        else:
            closes = not has_ended or status.is_on_disk(found)
            if not await self._pods.release(found, cell, closes=closes) and closes:
                await self._pods.delete(name, uid, grace)

    # --- the channel ---------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def connect(self, container: Container) -> AsyncIterator[anyio.abc.ByteStream]:
        at, words = place_of(container), (pod.SUPERVISOR, "connect", "--socket", pod.POD_SOCKET)
        try:
            stream = await open_pod_exec(self._api, at.pod, at.cell, words)
        except SandboxLost:
            self._starter.ended.add(container.id)
            raise
        self._starter.ended.discard(container.id)  # an API server that starts refuses streams, too
        try:
            yield stream
        finally:
            await anyio.aclose_forcefully(stream)

    # --- workspaces ----------------------------------------------------------------------------------------------

    async def bounds_volumes(self, size: int) -> bool:
        """True: a claim asks for its size. EngineError: the server's account may not make one."""
        await self._disks.check()
        return True

    async def save_files(self, container: Container, file: BinaryIO, most: int) -> None:
        await inside.save(self._api, place_of(container), container.user, file, most)

    async def put_files(self, container: Container, file: BinaryIO) -> None:
        await inside.put(self._api, place_of(container), container.user, file)

    async def copy_files(self, source: Container, targets: Sequence[Container], runtime: str) -> Sequence[str]:
        await inside.copy(self._api, place_of(source), [place_of(one) for one in targets], source.user)
        return ["" for _ in targets]

    @asynccontextmanager
    async def frozen(self, containers: Sequence[Container]) -> AsyncIterator[None]:
        """No API of Kubernetes stops a container's processes: what runs goes on."""
        yield

    async def remove_workspace(self, name: str) -> None:
        if "/" not in name:  # not a pod's own
            await self._disks.delete(name)
            return
        found = await self._pods.look(name)
        if found is not None and not self._is_others(found):
            pod_name, uid = name.split("/")
            await self._pods.delete(pod_name, uid, 1)

    async def shared_volumes(self, deployment: str) -> Sequence[ListedVolume]:
        return ()

    async def sweep(self, deployment: str, living: Collection[str]) -> None:
        """Workspaces in memory go with their pods."""

    async def sweep_own(self, instance: str) -> None:
        """Workspaces in memory go with their pods."""

    async def aclose(self) -> None:
        await self._api.aclose()
