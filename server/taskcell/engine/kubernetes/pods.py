"""Pods of one namespace: made, waited for, looked at, deleted."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from taskcell.engine.base import ContainerSpec
from taskcell.engine.kubernetes import pod, status
from taskcell.engine.kubernetes.api import Api, ApiRefused
from taskcell.errors import EngineUnavailable, NoRoom
from taskcell.supervisor import binary

_GONE, _FORBIDDEN, _CONFLICT = 404, 403, 409
#: The watch's beginning is too old (410), or the server is busy.
_LOOK_AGAIN = frozenset({410, 429, 500, 503})


class Pods:
    """Raises EngineUnavailable, EngineError."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._supervisors: dict[str, str] = {}

    async def make(self, spec: ContainerSpec) -> dict[str, Any]:
        """Have the pod made; its name is the spec's alone. Raises NoRoom, EngineError."""
        supervisor = await self._supervisor(pod.architecture(spec.profile))
        try:
            return await self._api.call("POST", self._api.path("pods"), pod.manifest(spec, supervisor))
        except ApiRefused as refused:
            if refused.reason == "AlreadyExists":  # the answer to a first attempt was lost
                return await self._api.call("GET", self._api.path("pods", spec.name))
            if refused.status == _FORBIDDEN and "exceeded quota" in str(refused):
                raise NoRoom(f"The namespace's quota has no room for a sandbox: {refused} Call again later.") from None
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

    async def until_running(self, name: str) -> dict[str, Any]:
        """Wait for the pod's container. Raises ImageMissing, EngineError."""
        while True:
            found = await self._api.call("GET", self._api.path("pods", name))
            if status.has_started(found):
                return found
            since = found["metadata"]["resourceVersion"]
            events = self._api.watch(
                self._api.path("pods"), fieldSelector=f"metadata.name={name}", resourceVersion=since
            )
            try:
                async for event in events:
                    if event["type"] != "BOOKMARK" and status.has_started(event["object"]):
                        found_now: dict[str, Any] = event["object"]
                        return found_now
            except ApiRefused as refused:
                if refused.status not in _LOOK_AGAIN:
                    raise
            except EngineUnavailable:
                pass  # the next look says whether the API is away for long
            # The server ends a watch after some minutes, or when it is restarted.

    async def look(self, container_id: str) -> dict[str, Any] | None:
        """The pod; None when it is gone, or another one has its name."""
        name, _, uid = container_id.partition("/")
        try:
            found = await self._api.call("GET", self._api.path("pods", name))
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
