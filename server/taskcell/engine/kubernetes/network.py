"""Keeps pods from their network, and looks whether that holds.

A pod always has a network of its own. A NetworkPolicy keeps it from that, where the cluster's network enforces one:
many do not, and none says so. So the first pod of each node tries, before any command runs in it.
"""

from __future__ import annotations

import math
import time
from typing import Any

import anyio

from taskcell.engine.kubernetes import inside, pod
from taskcell.engine.kubernetes.api import Api, ApiRefused
from taskcell.engine.kubernetes.inside import PodCell
from taskcell.errors import EngineError

POLICY_NAME = "taskcell-network-none"
POLICY_GROUP = "networking.k8s.io/v1"
#: Seconds for which the policy counts as seen: somebody may delete or change it, and many sandboxes may start at once.
SEEN_FOR = 2.0
#: Seconds that a cluster's network may take to enforce a policy for a new pod, and between two looks.
ENFORCED_WITHIN, LOOK_EVERY = 5.0, 0.25
_OPEN = (
    "A pod on node {node} reached the cluster's API in spite of the NetworkPolicy {policy}: the cluster's network does "
    "not enforce it, so that sandboxes would not be without a network. Use a network that does (such as Calico or "
    "Cilium), or allow it by policy.allow_unenforced = ['network']."
)


class Wall:
    """Raises EngineError, EngineUnavailable."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._seen = -math.inf
        self._nodes: set[str] = set()

    async def make(self) -> None:
        """Have the namespace's policy, which allows nothing in and nothing out."""
        if time.monotonic() - self._seen < SEEN_FOR:
            return
        try:
            found = await self._api.call("GET", self._api.path("networkpolicies", POLICY_NAME, POLICY_GROUP))
        except ApiRefused as refused:
            if refused.status != 404:
                raise
            found = await self._created()
        if any(found["spec"].get(way) for way in ("ingress", "egress")) or found["spec"]["podSelector"] != _SELECTOR:
            raise EngineError(
                f"The NetworkPolicy {POLICY_NAME} was changed, so that sandboxes may have a network. Delete it; it is "
                "made again."
            )
        self._seen = time.monotonic()

    async def _created(self) -> dict[str, Any]:
        body = {
            "apiVersion": POLICY_GROUP,
            "kind": "NetworkPolicy",
            "metadata": {"name": POLICY_NAME, "labels": {pod.LABEL_PREFIX + "sandbox": "1"}},
            "spec": {"podSelector": _SELECTOR, "policyTypes": ["Ingress", "Egress"]},
        }
        try:
            return await self._api.call("POST", self._api.path("networkpolicies", group=POLICY_GROUP), body)
        except ApiRefused as refused:
            if refused.reason != "AlreadyExists":
                raise
        return await self._api.call("GET", self._api.path("networkpolicies", POLICY_NAME, POLICY_GROUP))

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


_SELECTOR = {"matchLabels": {pod.LABEL_PREFIX + "network": "none"}}
