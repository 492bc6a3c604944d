"""The Kubernetes engine: pods by HTTP, channels by pods/exec."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any, BinaryIO

import anyio
import anyio.abc

from taskcell.engine.base import Container, ContainerSpec, EngineFacts, ListedContainer, Standing
from taskcell.engine.kubernetes import pod
from taskcell.engine.kubernetes.api import JSON_PATCH, Api, ApiRefused
from taskcell.engine.kubernetes.exec_stream import open_pod_exec
from taskcell.errors import EngineError, ImageMissing
from taskcell.model import WORKSPACE
from taskcell.policy.policy import AuthorizedProfile
from taskcell.supervisor import binary

#: Seconds from a pod's creation to its container's start, where the image is on the node: one, and more where many
#: start at once. A pull takes longer, and goes on in the cluster only while the pod is there.
POD_START_TIMEOUT = 60.0
#: Seconds to remove a pod that could not be started.
POD_UNDO_TIMEOUT = 5.0
#: Why a container cannot start, so that waiting is of no use, in Kubernetes' words.
_NO_IMAGE = frozenset({"ErrImageNeverPull", "InvalidImageName", "ImagePullBackOff", "ErrImagePull"})
_HOPELESS = _NO_IMAGE | {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
_ENDED = frozenset({"Succeeded", "Failed"})
_GONE = 404


class KubernetesEngine:
    """Makes sandboxes as pods in one namespace."""

    #: A cluster pulls images; it builds none.
    images = None

    def __init__(self, api: Api) -> None:
        self._api = api
        self._facts: EngineFacts | None = None
        self._supervisors: dict[str, str] = {}

    async def facts(self) -> EngineFacts:
        if self._facts is None:
            version = (await self._api.call("GET", "/version")).get("gitVersion", "?")
            weaknesses = (
                "Kubernetes bounds processes for all pods of a node alike (podPidsLimit of its kubelet): a profile's "
                "`pids` has no effect.",
                "A sandbox has no network only where the cluster's network enforces NetworkPolicies.",
            )
            self._facts = EngineFacts("Kubernetes", str(version), isolated=True, weaknesses=weaknesses)
        return self._facts

    # --- making --------------------------------------------------------------------------------------------------

    async def start(self, spec: ContainerSpec) -> Container:
        refused = list(pod.impossible(spec.profile))
        if spec.workspace.persistent or spec.workspace.folder:
            refused.append("its files are to be on disk, and this engine keeps them in memory")
        if refused:
            raise EngineError(f"The profile '{spec.profile.name}' cannot run on Kubernetes: {'; '.join(refused)}.")
        supervisor = await self._supervisor(pod.architecture(spec.profile))
        made = await self._api.call("POST", self._api.path("pods"), pod.manifest(spec, supervisor))
        try:
            with anyio.fail_after(POD_START_TIMEOUT):
                return self._described(await self._until_running(made), spec.profile)
        except BaseException as error:
            with anyio.move_on_after(POD_UNDO_TIMEOUT, shield=True):
                await self._delete(spec.name, made["metadata"]["uid"], 0)
            if isinstance(error, TimeoutError):
                raise EngineError(
                    f"The pod {spec.name} was not started within {POD_START_TIMEOUT:g} s: the cluster has no room for "
                    "it, or pulls its image. Call again in a minute."
                ) from None
            raise

    async def _supervisor(self, architecture: str) -> str:
        """The name of the ConfigMap that holds the program; it is made where it is not there."""
        if architecture not in self._supervisors:
            program = binary.read(architecture)
            name = f"taskcell-supervisor-{hashlib.sha256(program).hexdigest()[:16]}"
            body = {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": name, "labels": {pod.LABEL_PREFIX + "sandbox": "1"}},
                "immutable": True,
                "binaryData": {"supervisor": base64.b64encode(program).decode()},
            }
            try:
                await self._api.call("POST", self._api.path("configmaps"), body)
            except ApiRefused as refused:
                if refused.reason != "AlreadyExists":
                    raise
            self._supervisors[architecture] = name
        return self._supervisors[architecture]

    async def _until_running(self, made: dict[str, Any]) -> dict[str, Any]:
        """Wait for the pod's container. Raises ImageMissing, EngineError."""
        name, version = made["metadata"]["name"], made["metadata"]["resourceVersion"]
        while True:
            events = self._api.watch(
                self._api.path("pods"), fieldSelector=f"metadata.name={name}", resourceVersion=version
            )
            async for event in events:
                found: dict[str, Any] = event["object"]
                version = found["metadata"]["resourceVersion"]
                if event["type"] != "BOOKMARK" and _has_started(found):
                    return found
            # The server ends a watch after some minutes, or when it is restarted.

    # --- finding -------------------------------------------------------------------------------------------------

    def _described(self, found: dict[str, Any], profile: AuthorizedProfile) -> Container:
        meta = found["metadata"]
        return Container(
            id=f"{meta['name']}/{meta['uid']}",
            name=meta["annotations"].get(pod.LABEL_PREFIX + "name") or meta["name"],
            workspace=WORKSPACE,
            supervisor=pod.SUPERVISOR,
            reports=pod.POD_REPORTS,
            user=profile.user,
            image_id=profile.image,
            volume=meta["uid"],
            is_pod=True,
        )

    async def _look(self, container_id: str) -> dict[str, Any] | None:
        """The pod; None when it is gone, or another one has its name."""
        name, _, uid = container_id.partition("/")
        try:
            found = await self._api.call("GET", self._api.path("pods", name))
        except ApiRefused as refused:
            if refused.status == _GONE:
                return None
            raise
        return found if found["metadata"]["uid"] == uid else None

    async def find(self, container_id: str, profile: AuthorizedProfile) -> Container | None:
        found = await self._look(container_id)
        if found is None or _standing(found) is Standing.ENDED:
            return None
        return replace(self._described(found, profile), is_fresh=False)

    async def image_id(self, profile: AuthorizedProfile) -> str:
        """The reference: no API says which image a node would take for it. One with a digest is its own id."""
        return profile.image

    async def rename(self, container: Container, name: str) -> Container:
        """Pods keep their names; an annotation has the new one."""
        at = "/metadata/annotations/" + (pod.LABEL_PREFIX + "name").replace("/", "~1")
        change = [{"op": "test", "path": "/metadata/uid", "value": container.volume},
                  {"op": "replace", "path": at, "value": name}]  # fmt: skip
        await self._api.call("PATCH", self._pod_of(container.id), change, JSON_PATCH)
        return replace(container, name=name)

    async def containers(self, deployment: str) -> Sequence[ListedContainer]:
        selector = f"{pod.LABEL_PREFIX}deployment={pod.label(deployment)}"
        found = await self._api.call("GET", self._api.path("pods"), labelSelector=selector)
        return [
            ListedContainer(
                id=f"{one['metadata']['name']}/{one['metadata']['uid']}",
                name=one["metadata"]["annotations"].get(pod.LABEL_PREFIX + "name") or one["metadata"]["name"],
                labels={f"taskcell.{key.removeprefix(pod.LABEL_PREFIX)}": value
                        for key, value in one["metadata"]["labels"].items() if key.startswith(pod.LABEL_PREFIX)},
                state="removing" if one["metadata"].get("deletionTimestamp") else one["status"]["phase"].lower(),
                age=max(0.0, time.time() - _seconds(one["metadata"]["creationTimestamp"])),
            )
            for one in found["items"]
        ]  # fmt: skip

    async def standing(self, container: Container) -> Standing:
        found = await self._look(container.id)
        return Standing.ENDED if found is None else _standing(found)

    async def why_dead(self, container: Container) -> str:
        try:
            found = await self._look(container.id)
        except EngineError as error:
            return str(error)
        return "Its pod was removed." if found is None else _why_dead(found["status"])

    async def memory(self, container: Container) -> int | None:
        """None: that is in the metrics of the cluster, which need not be there."""
        return None

    # --- ending --------------------------------------------------------------------------------------------------

    def _pod_of(self, container_id: str) -> str:
        return self._api.path("pods", container_id.partition("/")[0])

    async def _delete(self, name: str, uid: str, grace: int) -> None:
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": grace}
        try:
            await self._api.call("DELETE", self._api.path("pods", name), body | {"preconditions": {"uid": uid}})
        except ApiRefused as refused:
            if refused.status not in (_GONE, 409):  # 409: another pod has the name by now
                raise

    async def stop(self, container_id: str) -> None:
        name, _, uid = container_id.partition("/")
        await self._delete(name, uid, pod.POD_GRACE)

    async def remove(self, container: Container, *, keep: bool = False) -> None:
        """Returns when the removal has begun: the pod's object stays for some seconds after its processes."""
        name, _, uid = container.id.partition("/")
        # Not 0: that takes it out of the API at once, and nobody then knows whether its processes have ended.
        await self._delete(name, uid, 1)

    # --- the channel ---------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def connect(self, container: Container) -> AsyncIterator[anyio.abc.ByteStream]:
        name = container.id.partition("/")[0]
        stream = await open_pod_exec(self._api, name, pod.CELL, (pod.SUPERVISOR, "connect", "--socket", pod.POD_SOCKET))
        try:
            yield stream
        finally:
            await anyio.aclose_forcefully(stream)

    # --- workspaces ----------------------------------------------------------------------------------------------

    async def bounds_volumes(self, size: int) -> bool:
        return False

    async def save_files(self, container: Container, file: BinaryIO, most: int) -> None:
        raise EngineError("This engine cannot read a task's files from outside its sandbox yet.")

    async def put_files(self, container: Container, file: BinaryIO) -> None:
        raise EngineError("This engine cannot put a task's files back from outside its sandbox yet.")

    async def copy_files(self, source: Container, targets: Sequence[Container], runtime: str) -> Sequence[str]:
        return ["pods cannot share files" for _ in targets]

    @asynccontextmanager
    async def frozen(self, containers: Sequence[Container]) -> AsyncIterator[None]:
        """No API of Kubernetes stops a container's processes: what runs goes on."""
        yield

    async def remove_workspace(self, name: str) -> None:
        """It goes with its pod."""

    async def sweep(self, deployment: str, living: Collection[str]) -> None:
        """Workspaces go with their pods."""

    async def sweep_own(self, instance: str) -> None:
        """Workspaces go with their pods."""

    async def aclose(self) -> None:
        await self._api.aclose()


def _seconds(time_of: str) -> float:
    return datetime.fromisoformat(time_of.replace("Z", "+00:00")).timestamp()


def _has_started(found: dict[str, Any]) -> bool:
    """Whether its container runs. Raises ImageMissing, EngineError when it never will."""
    name, status = found["metadata"]["name"], found.get("status", {})
    for one in status.get("containerStatuses", ()):
        waiting = one.get("state", {}).get("waiting") or {}
        if waiting.get("reason") in _HOPELESS:
            kind = ImageMissing if waiting["reason"] in _NO_IMAGE else EngineError
            raise kind(f"The pod {name} cannot start: {waiting['reason']}: {waiting.get('message', '')}")
    if status.get("phase") in _ENDED or found["metadata"].get("deletionTimestamp"):
        raise EngineError(f"The pod {name} ended at its start. {_why_dead(status)}")
    return bool(status.get("phase") == "Running")


def _standing(found: dict[str, Any]) -> Standing:
    is_over = found["status"].get("phase") in _ENDED or found["metadata"].get("deletionTimestamp")
    return Standing.ENDED if is_over else Standing.RUNS


def _why_dead(status: dict[str, Any]) -> str:
    if status.get("reason"):  # evicted, or over its deadline
        return f"{status['reason']}: {status.get('message', '')}"
    for one in status.get("containerStatuses", ()):
        for state in (one.get("state", {}), one.get("lastState", {})):
            ended = state.get("terminated")
            if ended and ended.get("reason") == "OOMKilled":
                return "It ran out of memory."
            if ended:
                return f"Its container ended with code {ended.get('exitCode')} ({ended.get('reason', '')})."
    return f"Its pod is {str(status.get('phase', 'unknown')).lower()}."
