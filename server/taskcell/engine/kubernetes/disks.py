"""Workspaces on disk: a PersistentVolumeClaim for each task, which outlives the task's pods and their nodes.

One node at a time can mount it (ReadWriteOnce), which every cluster's storage can do. So a task's pods stand on one
node, and see the same files there; where the first of them stands is the scheduler's choice.
"""

from __future__ import annotations

import hashlib
import re

import anyio

from taskcell.engine.base import ContainerSpec
from taskcell.engine.kubernetes import pod, rights
from taskcell.engine.kubernetes.api import Api, ApiRefused
from taskcell.errors import EngineError, NoRoom

#: Seconds for a claim that is being deleted to go, and between two looks: its last pod takes some seconds to.
DISK_GONE_WITHIN, DISK_LOOK = 30.0, 0.5
_GONE = 404
_PLAIN = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_LACKING = (
    "Files of tasks are to be on disk (workspace.persistent), and the server's account may not {rights} in the "
    "namespace {namespace}: give it a Role with these verbs (docs/engines.md has all that it needs)."
)


def claim_of(workspace: str) -> str:
    """The name of the claim with a task's files, which is also a label: the workspace's own name where it may be."""
    return (
        workspace
        if _PLAIN.fullmatch(workspace)
        else f"taskcell-data-{hashlib.sha256(workspace.encode()).hexdigest()[:40]}"
    )


class Disks:
    """Raises EngineError, EngineUnavailable.

    Arguments:
        storage_class: name of the StorageClass; empty means the cluster's default.
    """

    def __init__(self, api: Api, storage_class: str) -> None:
        self._api = api
        self._storage_class = storage_class

    async def check(self) -> None:
        """Raises EngineError: the server's account may not make claims, or delete them."""
        if lacking := await rights.missing_rights(self._api, rights.DISKS):
            raise EngineError(_LACKING.format(rights=", ".join(lacking), namespace=self._api.cluster.namespace))

    async def ensure(self, spec: ContainerSpec) -> bool:
        """Have the claim with a task's files; returns whether it is new. Raises NoRoom."""
        name = claim_of(spec.workspace.name)
        with anyio.move_on_after(DISK_GONE_WITHIN):
            while True:
                try:
                    await self._api.call("POST", self._api.path(_CLAIMS), self._claim(name, spec))
                except ApiRefused as refused:
                    if refused.is_over_quota:
                        raise NoRoom(f"The namespace's quota has no room for a task's files: {refused}") from None
                    if refused.reason != "AlreadyExists":
                        raise
                else:
                    return True
                if not await self._is_going(name):
                    return False
                await anyio.sleep(DISK_LOOK)  # its files are to be deleted: a task of that name has new ones
        raise EngineError(
            f"The task's last files (PersistentVolumeClaim {name}) are not deleted after {DISK_GONE_WITHIN:g} s. Call "
            "again in a minute, or see which pod still uses the claim."
        )

    async def delete(self, workspace: str) -> None:
        """Have a claim and its files deleted; a pod that still uses it is waited for by the cluster."""
        try:
            await self._api.call("DELETE", self._api.path(_CLAIMS, claim_of(workspace)))
        except ApiRefused as refused:
            if refused.status != _GONE:
                raise

    async def _is_going(self, name: str) -> bool:
        """Whether a claim is being deleted, or gone."""
        try:
            found = await self._api.call("GET", self._api.path(_CLAIMS, name))
        except ApiRefused as refused:
            if refused.status != _GONE:
                raise
            return True
        return "deletionTimestamp" in found["metadata"]

    def _claim(self, name: str, spec: ContainerSpec) -> dict[str, object]:
        own = {key: value for key, value in pod.labels(spec).items() if key in _LASTING}
        wanted = {"storageClassName": self._storage_class} if self._storage_class else {}
        return {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "labels": own},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": str(spec.workspace.size)}},
                **wanted,
            },
        }


_CLAIMS = "persistentvolumeclaims"
#: Labels that say nothing of the server that made it.
_LASTING = frozenset({pod.LABEL_PREFIX + "sandbox", pod.LABEL_PREFIX + "deployment"})
