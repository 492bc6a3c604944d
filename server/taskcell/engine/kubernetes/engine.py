"""The Kubernetes engine: pods by HTTP, channels by pods/exec."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, BinaryIO

import anyio
import anyio.abc

from taskcell.engine.base import Container, ContainerSpec, EngineFacts, ListedContainer, ListedVolume, Standing
from taskcell.engine.kubernetes import inside, pod, rights, status
from taskcell.engine.kubernetes.api import JSON_PATCH, Api
from taskcell.engine.kubernetes.exec_stream import open_pod_exec
from taskcell.engine.kubernetes.network import Wall
from taskcell.engine.kubernetes.pods import Pods
from taskcell.errors import EngineError
from taskcell.model import WORKSPACE
from taskcell.policy.policy import AuthorizedProfile

#: Seconds from a pod's creation to its container's start, where the image is on the node: one, and more where many
#: start at once. A pull takes longer, and goes on in the cluster only while the pod is there.
POD_START_TIMEOUT = 60.0
#: Seconds to remove a pod that could not be started.
POD_UNDO_TIMEOUT = 5.0
_RIGHTS = (
    "The server's account may not {rights} in the namespace {namespace}: give it a Role with these verbs "
    "(docs/engines.md has all that it needs)."
)


class KubernetesEngine:
    """Makes sandboxes as pods in one namespace."""

    #: A cluster pulls images; it builds none.
    images = None

    def __init__(self, api: Api) -> None:
        self._api = api
        self._facts: EngineFacts | None = None
        self._pods = Pods(api)
        self._wall = Wall(api)
        self._environments: dict[str, Mapping[str, str]] = {}

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
        if spec.workspace.persistent or spec.workspace.folder:
            refused.append("its files are to be on disk, and this engine keeps them in memory")
        if refused:
            raise EngineError(f"The profile '{spec.profile.name}' cannot run on Kubernetes: {'; '.join(refused)}.")
        if "pids" not in spec.allow_unenforced and spec.profile.pids:
            raise EngineError(
                "Kubernetes bounds the number of processes by node (podPidsLimit of its kubelets) and not by pod, so "
                "that `pids` has no effect. The operator can allow that: policy.allow_unenforced = ['pids']."
            )
        await self._wall.make()
        made = await self._pods.make(spec)
        try:
            with anyio.fail_after(POD_START_TIMEOUT):
                found = await self._pods.until_running(spec.name)
                if "network" not in spec.allow_unenforced:
                    await self._wall.check(spec.name, found["spec"]["nodeName"])
                is_fresh = not await self._inherit(found, spec)
                return await self._described(found, spec.profile, is_fresh=is_fresh)
        except BaseException as error:
            with anyio.move_on_after(POD_UNDO_TIMEOUT, shield=True):
                await self._pods.delete(spec.name, made["metadata"]["uid"], 0)
            if isinstance(error, TimeoutError):
                raise EngineError(
                    f"The pod {spec.name} was not started within {POD_START_TIMEOUT:g} s: the cluster has no room for "
                    "it, or pulls its image. Call again in a minute."
                ) from None
            raise

    async def _inherit(self, found: dict[str, Any], spec: ContainerSpec) -> bool:
        """Fill a new pod with the files of the task's last one, if that runs; returns whether it did."""
        for holder in spec.workspace.holders:
            old = await self._pods.look(holder.id)
            if old is not None and status.standing_of_pod(old) is Standing.RUNS:
                other = old["metadata"]["labels"].get(pod.LABEL_PREFIX + "profile")
                if other != pod.label(spec.profile.name):
                    raise EngineError(
                        f"The task has a pod of its profile '{other}' already, and pods cannot share files: close the "
                        "task (`sandbox close`), or use another task_id."
                    )
                await self._copy(old["metadata"]["name"], [found["metadata"]["name"]], spec.profile.user)
                return True
        return False

    async def _copy(self, source: str, targets: Sequence[str], user: str | None) -> None:
        with tempfile.TemporaryFile() as file:
            await inside.save(self._api, source, user, file, inside.ARCHIVE_MAX)
            for target in targets:
                file.seek(0)
                await inside.put(self._api, target, user, file)

    # --- finding -------------------------------------------------------------------------------------------------

    async def _described(self, found: dict[str, Any], profile: AuthorizedProfile, *, is_fresh: bool) -> Container:
        return Container(
            id=status.id_of(found),
            name=status.name_of(found),
            workspace=WORKSPACE,
            supervisor=pod.SUPERVISOR,
            reports=pod.POD_REPORTS,
            user=profile.user,
            environment=await self._environment(found),
            image_id=profile.image,
            volume=status.id_of(found),
            is_fresh=is_fresh,
            is_pod=True,
        )

    async def _environment(self, found: dict[str, Any]) -> Mapping[str, str]:
        """The image's own variables: the first pod of each image is asked."""
        image = status.image_of(found)
        if image not in self._environments:
            self._environments[image] = await inside.environment(self._api, found["metadata"]["name"])
        return self._environments[image]

    async def find(self, container_id: str, profile: AuthorizedProfile) -> Container | None:
        found = await self._pods.look(container_id)
        if found is None or status.standing_of_pod(found) is Standing.ENDED:
            return None
        return await self._described(found, profile, is_fresh=False)

    async def image_id(self, profile: AuthorizedProfile) -> str:
        """The reference: no API says which image a node would take for it. One with a digest is its own id."""
        return profile.image

    async def rename(self, container: Container, name: str) -> Container:
        """Pods keep their names; an annotation has the new one."""
        at = "/metadata/annotations/" + (pod.LABEL_PREFIX + "name").replace("/", "~1")
        change = [{"op": "test", "path": "/metadata/uid", "value": container.id.partition("/")[2]},
                  {"op": "replace", "path": at, "value": name}]  # fmt: skip
        await self._api.call("PATCH", self._pod_of(container.id), change, JSON_PATCH)
        return replace(container, name=name)

    async def containers(self, deployment: str) -> Sequence[ListedContainer]:
        selector = f"{pod.LABEL_PREFIX}deployment={pod.label(deployment)}"
        found = await self._api.call("GET", self._api.path("pods"), labelSelector=selector)
        return [status.listed(one) for one in found["items"]]

    async def standing(self, container: Container) -> Standing:
        found = await self._pods.look(container.id)
        return Standing.ENDED if found is None else status.standing_of_pod(found)

    async def why_dead(self, container: Container) -> str:
        try:
            found = await self._pods.look(container.id)
        except EngineError as error:
            return str(error)
        return "Its pod was removed." if found is None else status.why_ended(found["status"])

    async def memory(self, container: Container) -> int | None:
        """None: that is in the metrics of the cluster, which need not be there."""
        return None

    # --- ending --------------------------------------------------------------------------------------------------

    def _pod_of(self, container_id: str) -> str:
        return self._api.path("pods", container_id.partition("/")[0])

    async def stop(self, container_id: str) -> None:
        name, _, uid = container_id.partition("/")
        await self._pods.delete(name, uid, pod.POD_GRACE)

    async def remove(self, container: Container, *, keep: bool = False) -> None:
        """Returns when the removal has begun: the pod's object stays for some seconds after its processes."""
        name, _, uid = container.id.partition("/")
        # Not 0: that takes it out of the API at once, and nobody then knows whether its processes have ended.
        await self._pods.delete(name, uid, 1)

    # --- the channel ---------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def connect(self, container: Container) -> AsyncIterator[anyio.abc.ByteStream]:
        name = _pod_name(container)
        stream = await open_pod_exec(self._api, name, pod.CELL, (pod.SUPERVISOR, "connect", "--socket", pod.POD_SOCKET))
        try:
            yield stream
        finally:
            await anyio.aclose_forcefully(stream)

    # --- workspaces ----------------------------------------------------------------------------------------------

    async def bounds_volumes(self, size: int) -> bool:
        return False

    async def save_files(self, container: Container, file: BinaryIO, most: int) -> None:
        await inside.save(self._api, _pod_name(container), container.user, file, most)

    async def put_files(self, container: Container, file: BinaryIO) -> None:
        await inside.put(self._api, _pod_name(container), container.user, file)

    async def copy_files(self, source: Container, targets: Sequence[Container], runtime: str) -> Sequence[str]:
        await self._copy(_pod_name(source), [_pod_name(one) for one in targets], source.user)
        return ["" for _ in targets]

    @asynccontextmanager
    async def frozen(self, containers: Sequence[Container]) -> AsyncIterator[None]:
        """No API of Kubernetes stops a container's processes: what runs goes on."""
        yield

    async def remove_workspace(self, name: str) -> None:
        """It goes with its pod."""

    async def shared_volumes(self, deployment: str) -> Sequence[ListedVolume]:
        return ()

    async def sweep(self, deployment: str, living: Collection[str]) -> None:
        """Workspaces go with their pods."""

    async def sweep_own(self, instance: str) -> None:
        """Workspaces go with their pods."""

    async def aclose(self) -> None:
        await self._api.aclose()


def _pod_name(container: Container) -> str:
    return container.id.partition("/")[0]
