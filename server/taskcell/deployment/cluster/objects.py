"""The objects of a deployment in its namespace: what they are called, and one test-and-change of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from taskcell.engine.kubernetes.api import JSON_PATCH, Api, ApiRefused
from taskcell.engine.kubernetes.pod import LABEL_PREFIX, label

LEASES = "coordination.k8s.io/v1"
#: Labels: of which deployment an object is, what a Lease is for, and of which server an object is now.
DEPLOYMENT, ROLE, INSTANCE = (LABEL_PREFIX + word for word in ("deployment", "role", "instance"))
MEMBER, CLAIM = "server", "task"
#: Hex digits that stand for a deployment's name in names of objects.
_SHORT = 10
MISSING, CONFLICT, INVALID = 404, 409, 422


class Objects:
    """Those of one deployment. Every method that asks raises EngineUnavailable, EngineError.

    Arguments:
        deployment: its name.
    """

    def __init__(self, api: Api, deployment: str) -> None:
        self.api = api
        self.deployment = deployment
        self._short = hashlib.sha256(deployment.encode()).hexdigest()[:_SHORT]

    def name(self, *parts: str) -> str:
        """The name of one of the deployment's objects."""
        return "-".join(("taskcell", self._short, *parts))

    def path(self, kind: str, name: str = "") -> str:
        """The path of an object, or of all of its kind: `pods`, `secrets`, `leases`."""
        return self.api.path(kind, name, LEASES if kind == "leases" else "")

    def labels(self, **more: str) -> dict[str, str]:
        """The deployment's label, and others of taskcell's, as objects have them."""
        return {DEPLOYMENT: label(self.deployment)} | {LABEL_PREFIX + key: label(value) for key, value in more.items()}

    async def listed(self, kind: str, *, is_fresh: bool = True, **more: str) -> Sequence[dict[str, Any]]:
        """The objects that have these labels.

        Arguments:
            is_fresh: False takes what the API server has in memory, some milliseconds old: its store is not asked.
        """
        selector = ",".join(f"{key}={value}" for key, value in self.labels(**more).items())
        age = {} if is_fresh else {"resourceVersion": "0"}
        answer = await self.api.call("GET", self.path(kind), labelSelector=selector, **age)
        found: Sequence[dict[str, Any]] = answer["items"]
        return found

    async def found(self, kind: str, name: str) -> dict[str, Any] | None:
        """One object; None where there is none."""
        try:
            return await self.api.call("GET", self.path(kind, name))
        except ApiRefused as refused:
            if refused.status == MISSING:
                return None
            raise

    async def make(self, kind: str, body: Mapping[str, Any]) -> dict[str, Any] | None:
        """Make an object; None where there is one of its name."""
        try:
            return await self.api.call("POST", self.path(kind), dict(body))
        except ApiRefused as refused:
            if refused.status == CONFLICT:
                return None
            raise

    async def change(self, kind: str, name: str, steps: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
        """Change an object by a JSON Patch; None where it is gone, or one of the patch's tests fails."""
        try:
            return await self.api.call("PATCH", self.path(kind, name), list(steps), JSON_PATCH)
        except ApiRefused as refused:
            if refused.status in (MISSING, CONFLICT, INVALID):
                return None
            raise

    async def delete(self, kind: str, found: Mapping[str, Any], *, grace: int | None = None) -> bool:
        """Delete an object as it was found; whether that was so. `grace`: seconds for a pod's processes."""
        keys = ("uid",) if kind == "pods" else ("uid", "resourceVersion")  # a pod's changes with its status
        body: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions"}
        body["preconditions"] = {key: found["metadata"][key] for key in keys}
        if grace is not None:
            body["gracePeriodSeconds"] = grace
        try:
            await self.api.call("DELETE", self.path(kind, found["metadata"]["name"]), body)
        except ApiRefused as refused:
            if refused.status in (MISSING, CONFLICT):
                return False
            raise
        return True


def test(at: str, value: object) -> Mapping[str, Any]:
    """A step of a patch: it fails unless there is this value."""
    return {"op": "test", "path": at, "value": value}


def set_to(at: str, value: object) -> Mapping[str, Any]:
    """A step of a patch: a value in the place of what is there, if anything is."""
    return {"op": "add", "path": at, "value": value}


def at_label(key: str) -> str:
    return "/metadata/labels/" + key.replace("/", "~1")


def at_annotation(key: str) -> str:
    return "/metadata/annotations/" + key.replace("/", "~1")
