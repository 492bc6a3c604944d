"""Pods of one namespace: made, waited for, looked at, deleted."""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import anyio
import structlog

from taskcell.engine.base import ContainerSpec
from taskcell.engine.kubernetes import admission, pod, status
from taskcell.engine.kubernetes.api import JSON_PATCH, Api, ApiRefused
from taskcell.engine.kubernetes.watching import PodWatch
from taskcell.errors import EngineError, NoRoom, Taken
from taskcell.supervisor import binary

log = structlog.get_logger(__name__)

_REPLACED = (
    "The ConfigMap {name} holds another program than this server's supervisor, so that no sandbox is started with it: "
    "somebody has replaced it. Delete it; it is made again."
)
_CHANGED = (
    "The cluster changed the sandbox's pod when it was made, so that it is not used: it {what}. The cluster's "
    "administrator must have the admission webhook or policy leave out pods with the label taskcell.dev/sandbox."
)
_CHANGES_SHOWN = 4
#: Attempts at one change of a pod; each fails only because another server has just changed it.
CHANGE_ATTEMPTS = 8
#: Seconds to remove a pod that is not used.
DISCARD_TIMEOUT = 5.0
_GONE, _CONFLICT = 404, 409
#: A patch whose test fails.
_INVALID = 422


class Pods:
    """Raises EngineUnavailable, EngineError."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.watch = PodWatch(api)
        self._supervisors: dict[str, str] = {}

    async def make(self, spec: ContainerSpec, disk: str) -> dict[str, Any]:
        """Have the pod made; its name is the spec's alone. Raises NoRoom, EngineError. `disk` as in `pod.manifest`."""
        architecture = pod.architecture(spec.profile)
        supervisor = self._supervisors.get(architecture) or await self.have_supervisor(architecture)
        try:
            wanted = pod.manifest(spec, supervisor, time.time(), disk)
            made = status.as_pod(await self._api.call("POST", self._api.path("pods"), wanted))
        except ApiRefused as refused:
            if refused.is_over_quota:
                raise NoRoom(f"The namespace's quota has no room for a sandbox: {refused}. Call again later.") from None
            if refused.reason != "AlreadyExists":
                raise
            # The answer to the first attempt was lost.
            made = status.as_pod(await self._api.call("GET", self._api.path("pods", spec.name)))
        if changed := list(admission.changes(wanted, made)):
            with anyio.CancelScope(shield=True), anyio.move_on_after(DISCARD_TIMEOUT):
                await self.delete(spec.name, made["metadata"]["uid"], 0)
            raise EngineError(_CHANGED.format(what="; it ".join(changed[:_CHANGES_SHOWN])))
        return made

    async def have_supervisor(self, architecture: str) -> str:
        """Have the ConfigMap that holds the program, and return its name. It is made where it is not there.

        Raises EngineError: another program is in it.
        """
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
            found = await self._api.call("GET", self._api.path("configmaps", name))
            if found.get("binaryData") != body["binaryData"]:
                raise EngineError(_REPLACED.format(name=name)) from None
        self._supervisors[architecture] = name
        return name

    async def keep_supervisors(self) -> None:
        """Have every program that pods have been made with where it was: who deletes one need not know who has it."""
        for architecture in tuple(self._supervisors):
            await self.have_supervisor(architecture)

    async def restore_label(self, found: dict[str, Any]) -> None:
        """Give a pod the label again by which it is kept from its network, if somebody has taken that away."""
        if status.labels_of(found).get(pod.NETWORK) == "none":
            return
        labels = {"op": "add", "path": "/metadata/labels", "value": {}}
        change = [
            {"op": "test", "path": "/metadata/uid", "value": found["metadata"]["uid"]},
            *([] if status.labels_of(found) else [labels]),
            {"op": "add", "path": _at("labels", pod.NETWORK), "value": "none"},
        ]
        if await self._patched(found["metadata"]["name"], change):
            log.warning("A pod had lost the label that keeps it from its network.", pod=found["metadata"]["name"])

    async def until_running(self, name: str, cell: str, not_id: str = "") -> dict[str, Any]:
        """Wait for one of the pod's containers, another one than `not_id`. Raises ImageMissing, EngineError."""
        found = status.as_pod(await self._api.call("GET", self._api.path("pods", name)))
        while not status.has_started(found, cell) or status.id_of(found, cell) == not_id:
            found = await self.watch.next(found)
        return found

    async def claim(self, found: dict[str, Any], cell: str) -> bool:
        """Take a container that is not in use. Returns False where another server was faster, or it is in use."""

        def taken(used: list[str]) -> list[str]:
            return [*used, cell] if status.is_free_among(used, cell) else used

        mark = _mark()
        try:
            return await self._use(found, taken, mark) is not None
        except BaseException:  # given up on its way: it may have been made
            with anyio.CancelScope(shield=True), anyio.move_on_after(DISCARD_TIMEOUT), suppress(EngineError):
                now = await self.look(status.volume_of(found))
                if now is not None and status.annotations_of(now).get(pod.CHANGE) == mark:
                    await self.release(now, cell)
            raise

    async def assign(self, container_id: str, name: str, owner: str) -> None:
        """Give a pod that has no task's name one. Raises Taken: it has one, is gone, or is not that server's.

        Arguments:
            owner: the server that must have it; empty where servers do not share a deployment.
        """
        pod_name, uid = container_id.split("/")[:2]
        named, own = _at("annotations", pod.LABEL_PREFIX + "name"), _at("labels", pod.LABEL_PREFIX + "instance")
        change = [
            {"op": "test", "path": "/metadata/uid", "value": uid},
            *([{"op": "test", "path": own, "value": owner}] if owner else []),
            {"op": "test", "path": named, "value": ""},
            {"op": "replace", "path": named, "value": name},
        ]
        if not await self._patched(pod_name, change):
            # The answer to a first attempt may have been lost; no two pods are given one name.
            found = await self.look(container_id)
            if found is not None and status.name_of(found) == name and (not owner or status.owner_of(found) == owner):
                return
            raise Taken(f"Another server has the pod {pod_name}, which stood ready, or it is gone. Call again.")

    async def release(self, found: dict[str, Any], cell: str, *, closes: bool = False) -> bool:
        """A container is not in use any more; returns whether another one of the pod's is.

        Arguments:
            closes: the pod is to be deleted with its last container: nobody takes one of it in between.
        """

        def left(used: list[str]) -> list[str]:
            others = [one for one in used if one != cell]
            is_last = all(one.endswith(pod.SPOILT) for one in others)
            return [*others, pod.CLOSING] if closes and is_last and pod.CLOSING not in others else others

        after = await self._use(found, left)
        return any(not one.endswith(pod.SPOILT) for one in after or ())

    async def spoil(self, found: dict[str, Any], cell: str) -> None:
        """A container is not in use any more, and must not be."""
        await self._use(found, lambda used: [one + pod.SPOILT if one == cell else one for one in used])

    async def _use(
        self, found: dict[str, Any], change: Callable[[list[str]], list[str]], mark: str = ""
    ) -> list[str] | None:
        """Change which containers are in use, as often as others change it meanwhile; None where nothing changes."""
        now: dict[str, Any] | None = found
        mark = mark or _mark()
        for _ in range(CHANGE_ATTEMPTS):
            if now is None or not status.is_sandbox(now):  # gone, or somebody has taken the annotation away
                return None
            before = status.cells_in_use(now)
            if status.annotations_of(now).get(pod.CHANGE) == mark:  # it was made, and its answer was lost
                return before
            after = change(before)
            if after == before:
                return None
            if await self._change(now, after, mark):
                return after
            now = await self.look(status.volume_of(found))
        raise EngineError(f"The pod {found['metadata']['name']} is changed by others again and again. Call again.")

    async def _change(self, found: dict[str, Any], after: Sequence[str], mark: str) -> bool:
        """One patch that tests what it changes, so that of several servers one wins. `mark`: says who made it."""
        at = _at("annotations", pod.CELLS)
        change = [
            {"op": "test", "path": "/metadata/uid", "value": found["metadata"]["uid"]},
            {"op": "test", "path": at, "value": status.annotations_of(found)[pod.CELLS]},
            {"op": "replace", "path": at, "value": ",".join(after)},
            {"op": "add", "path": _at("annotations", pod.CHANGE), "value": mark},
        ]
        return await self._patched(found["metadata"]["name"], change)

    async def _patched(self, name: str, change: Sequence[dict[str, Any]]) -> bool:
        """Whether a patch was made: its tests held, and the pod is there."""
        try:
            await self._api.call("PATCH", self._api.path("pods", name), change, JSON_PATCH)
        except ApiRefused as refused:
            if refused.status in (_CONFLICT, _GONE, _INVALID):
                return False
            raise
        return True

    async def with_disk(self, disk: str) -> list[dict[str, Any]]:
        """The running pods that use a claim."""
        found = await self._api.call("GET", self._api.path("pods"), labelSelector=f"{pod.DISK}={disk}")
        return [one for one in map(status.as_pod, status.items_of(found)) if status.runs(one)]

    async def look(self, container_id: str) -> dict[str, Any] | None:
        """The pod; None when it is gone, or another one has its name."""
        name, uid = container_id.split("/")[:2]
        try:
            found = status.as_pod(await self._api.call("GET", self._api.path("pods", name)))
        except ApiRefused as refused:
            if refused.status == _GONE:
                return None
            raise
        return found if found["metadata"]["uid"] == uid else None

    async def delete(self, name: str, uid: str, grace: int) -> None:
        """Begin to remove a pod; does nothing when it is gone. `grace`: seconds that its processes get."""
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": grace}
        try:
            await self._api.call("DELETE", self._api.path("pods", name), body | {"preconditions": {"uid": uid}})
        except ApiRefused as refused:
            if refused.status not in (_GONE, _CONFLICT):  # a conflict: another pod has the name by now
                raise


def _mark() -> str:
    """What no other change is marked with."""
    return secrets.token_hex(8)


def _at(place: str, key: str) -> str:
    """Where a patch finds a label or an annotation."""
    return f"/metadata/{place}/{key.replace('/', '~1')}"
