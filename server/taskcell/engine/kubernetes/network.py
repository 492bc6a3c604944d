"""Keeps pods from their network, and looks whether that holds.

A pod always has a network of its own. A NetworkPolicy keeps it from that, where the cluster's network enforces one:
many do not, and none says so. So the first pod of each node tries, before any command runs in it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import anyio
import structlog

from taskcell.engine.kubernetes import inside, pod, status
from taskcell.engine.kubernetes.api import JSON_PATCH, Api, ApiRefused
from taskcell.engine.kubernetes.inside import PodCell
from taskcell.engine.kubernetes.network_policies import POLICY_GROUP, POLICY_NAME, WANTED, NetworkPolicy, holds, opener
from taskcell.errors import EngineError

log = structlog.get_logger(__name__)

#: Seconds for which the policies count as seen: somebody may change them, and many sandboxes may start at once.
SEEN_FOR = 2.0
#: Seconds that a cluster's network may take to enforce a policy for a new pod, and between two looks.
ENFORCED_WITHIN, LOOK_EVERY = 5.0, 0.25
_KIND = "networkpolicies"
_OPEN = (
    "A pod on node {node} reached the cluster's API in spite of the NetworkPolicy {policy}: the cluster's network does "
    "not enforce it, so that sandboxes would not be without a network. Use a network that does (such as Calico or "
    "Cilium), or allow it by policy.allow_unenforced = ['network']."
)
_ADDED = (
    "The NetworkPolicy {policy} lets pods of sandboxes reach others or be reached, and policies add up. Have its "
    "podSelector leave out pods with the label {label}, or allow it by policy.allow_unenforced = ['network']."
)
_UNMENDED = (
    "The NetworkPolicy {policy}, which keeps sandboxes from a network, was {what}, and the server cannot restore it "
    "({why}). Sandboxes do not run without it; make it as deploy/kubernetes/sandboxes.yaml has it."
)


class NetworkOpen(EngineError):
    """Nothing keeps sandboxes from a network any more."""


class Wall:
    """Raises NetworkOpen, EngineError, EngineUnavailable."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._seen = -math.inf
        self._others: list[NetworkPolicy] = []
        self._nodes: set[str] = set()

    async def make(self) -> None:
        """Have the namespace's policy, which allows nothing in and nothing out, as it was not long ago."""
        if time.monotonic() - self._seen > SEEN_FOR:
            await self.restore()

    async def restore(self) -> None:
        """Look at the namespace's policies, and have taskcell's own there as it is to be."""
        found = status.items_of(await self._api.call("GET", self._api.path(_KIND, group=POLICY_GROUP)))
        own = next((one for one in found if one["metadata"]["name"] == POLICY_NAME), None)
        if own is None:
            await self._mend("deleted", "POST", self._api.path(_KIND, group=POLICY_GROUP), _POLICY)
        elif not holds(own):
            change = [{"op": "replace", "path": "/spec", "value": WANTED}]
            await self._mend("changed", "PATCH", self._api.path(_KIND, POLICY_NAME, POLICY_GROUP), change, JSON_PATCH)
        self._others = [one for one in found if one is not own]
        self._seen = time.monotonic()

    async def _mend(self, what: str, *request: Any) -> None:
        try:
            await self._api.call(*request)
        except ApiRefused as refused:
            if refused.reason == "AlreadyExists":  # another start, or another server, was faster
                return
            raise NetworkOpen(_UNMENDED.format(policy=POLICY_NAME, what=what, why=refused)) from refused
        if math.isfinite(self._seen):
            log.warning(f"The NetworkPolicy that keeps sandboxes from a network was {what}; it is restored.")

    def check_labels(self, labels: Mapping[str, str]) -> None:
        """Raises NetworkOpen: another policy of the namespace, as last seen, opens a pod with these labels."""
        if name := opener(self._others, labels):
            raise NetworkOpen(_ADDED.format(policy=name, label=pod.NETWORK))

    async def check(self, at: PodCell, node: str) -> None:
        """Look from inside a new pod, if it is the first one on its node."""
        if node in self._nodes:
            return
        until = anyio.current_time() + ENFORCED_WITHIN
        while await inside.reaches(self._api, at):
            if anyio.current_time() > until:
                raise EngineError(_OPEN.format(node=node, policy=POLICY_NAME))
            await anyio.sleep(LOOK_EVERY)
        self._nodes.add(node)


_POLICY = {
    "apiVersion": POLICY_GROUP,
    "kind": "NetworkPolicy",
    "metadata": {"name": POLICY_NAME, "labels": {pod.LABEL_PREFIX + "sandbox": "1"}},
    "spec": WANTED,
}
