"""What sandboxes rely on is restored while they run, and they end where it cannot be."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import anyio
import pytest

from api_server import ApiServer, api_server
from observe import HOST_TIMEOUT
from taskcell.engine.kubernetes import pod
from taskcell.engine.kubernetes.api import JSON_PATCH, Api, ApiRefused
from taskcell.engine.kubernetes.guard import SUPERVISOR_EVERY, UNMENDED_LOOKS, Guard
from taskcell.engine.kubernetes.network import NetworkOpen, Wall
from taskcell.engine.kubernetes.network_policies import POLICY_GROUP, POLICY_NAME, WANTED, holds, opener
from taskcell.engine.kubernetes.pods import Pods
from taskcell.errors import EngineError

pytestmark = pytest.mark.anyio

INSTANCE = "one"
OPEN_EGRESS = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "egress": [{"ports": [{"port": 53}]}]}


class Guarded:
    """A server's pods and their guard, which looks without a pause, until the end of the test."""

    def __init__(self, server: ApiServer, api: Api) -> None:
        self.server, self.api = server, api
        self.pods, self.wall = Pods(api), Wall(api)
        self.guard = Guard(self.pods, self.wall, look_every=0.005)
        self.policies = api.path("networkpolicies", group=POLICY_GROUP)

    async def pod(self, name: str, **annotations: str) -> dict[str, Any]:
        labels = {pod.LABEL_PREFIX + "instance": INSTANCE, pod.NETWORK: "none"}
        meta = {"name": name, "labels": labels, "annotations": {pod.CELLS: "c"} | annotations}
        body = {"metadata": meta, "spec": {"containers": [{"name": "c"}]}, "status": {"phase": "Running"}}
        return await self.api.call("POST", self.api.path("pods"), body)

    async def foreign(self, name: str) -> None:
        """A pod of somebody else with a sandbox's labels."""
        meta = {"name": name, "labels": {pod.LABEL_PREFIX + "instance": INSTANCE, pod.NETWORK: "none"}}
        body = {"metadata": meta, "spec": {"containers": []}, "status": {"phase": "Running"}}
        await self.api.call("POST", self.api.path("pods"), body)

    async def spoil(self, spec: dict[str, Any]) -> None:
        change = [{"op": "replace", "path": "/spec", "value": spec}]
        await self.api.call("PATCH", f"{self.policies}/{POLICY_NAME}", change, JSON_PATCH)

    def is_held(self) -> bool:
        found = self.server.all("networkpolicies").get(POLICY_NAME)
        return found is not None and holds(found)

    async def until(self, is_so: Callable[[], bool]) -> None:
        with anyio.fail_after(HOST_TIMEOUT):
            while not is_so():
                await anyio.sleep(0.01)

    async def looks(self, count: int) -> None:
        """Until the policies have been looked at so many more times."""
        until = self.server.requests["GET networkpolicies"] + count
        await self.until(lambda: self.server.requests["GET networkpolicies"] >= until)


@pytest.fixture
async def guarded() -> AsyncIterator[Guarded]:
    async with api_server() as server:
        api = server.api()
        made = Guarded(server, api)
        await made.wall.make()
        async with anyio.create_task_group() as group:
            group.start_soon(made.pods.watch.run, INSTANCE, lambda _: None)
            group.start_soon(made.guard.run)
            await made.until(lambda: server.requests["WATCH pods"] > 0)
            yield made
            group.cancel_scope.cancel()
        await api.aclose()


@pytest.mark.parametrize(
    "spec",
    [
        None,
        {**WANTED, "egress": [{}]},
        {**WANTED, "ingress": [{"from": [{"podSelector": {}}]}]},
        {**WANTED, "policyTypes": ["Ingress"]},
        {**WANTED, "podSelector": {"matchLabels": {pod.NETWORK: "none", "a": "b"}}},
        {},
    ],
    ids=["deleted", "egress", "ingress", "one way only", "selects others", "empty"],
)
async def test_a_policy_that_was_deleted_or_weakened_is_restored_while_pods_run(
    guarded: Guarded, spec: dict[str, Any] | None
) -> None:
    await guarded.pod("a")
    if spec is None:
        await guarded.api.call("DELETE", f"{guarded.policies}/{POLICY_NAME}")
    else:
        await guarded.spoil(spec)
    await guarded.until(guarded.is_held)
    assert list(guarded.server.all("pods")) == ["a"]


async def test_a_policy_that_cannot_be_restored_ends_what_relies_on_it_and_the_next_start_says_why(
    guarded: Guarded,
) -> None:
    await guarded.pod("a")
    await guarded.pod("allowed", **{pod.OPEN_NETWORK: "yes"})
    await guarded.foreign("foreign")
    guarded.server.failing.add("POST networkpolicies")
    await guarded.api.call("DELETE", f"{guarded.policies}/{POLICY_NAME}")
    await guarded.until(lambda: set(guarded.server.all("pods")) == {"allowed", "foreign"})
    (why,) = guarded.guard.ended.values()
    assert "taskcell-network-none, which keeps sandboxes from a network, was deleted" in why
    with pytest.raises(NetworkOpen, match="cannot restore it"):
        await guarded.wall.restore()


async def test_a_policy_that_opens_sandboxes_beside_ours_ends_them_and_is_named(guarded: Guarded) -> None:
    await guarded.pod("a")
    await guarded.pod("allowed", **{pod.OPEN_NETWORK: "yes"})
    body = {"metadata": {"name": "allow-dns"}, "spec": OPEN_EGRESS}
    await guarded.api.call("POST", guarded.policies, body)
    await guarded.until(lambda: list(guarded.server.all("pods")) == ["allowed"])
    (why,) = guarded.guard.ended.values()
    assert "The NetworkPolicy allow-dns lets pods of sandboxes reach others" in why
    await guarded.wall.restore()
    with pytest.raises(NetworkOpen, match="allow-dns"):
        guarded.wall.check_labels({pod.NETWORK: "none"})


@pytest.mark.parametrize("labels", [None, {pod.LABEL_PREFIX + "instance": INSTANCE, pod.NETWORK: "bridge"}])
async def test_the_label_by_which_a_pod_is_kept_from_its_network_is_restored(
    guarded: Guarded, labels: dict[str, str] | None
) -> None:
    found = await guarded.pod("a")
    change = [{"op": "replace", "path": "/metadata/labels", "value": labels or {}}]
    await guarded.api.call("PATCH", guarded.api.path("pods", "a"), change, JSON_PATCH)
    if labels is None:  # the watch by label has lost it: the engine looks at it then
        await guarded.pods.restore_label(await guarded.pods.look(f"a/{found['metadata']['uid']}") or {})
    await guarded.until(lambda: guarded.server.all("pods")["a"]["metadata"]["labels"].get(pod.NETWORK) == "none")


async def test_a_server_without_pods_asks_for_nothing_and_one_with_many_asks_once_for_all(guarded: Guarded) -> None:
    before = guarded.server.requests["GET networkpolicies"]
    await anyio.sleep(0.1)
    assert guarded.server.requests["GET networkpolicies"] == before
    for number in range(20):
        await guarded.pod(f"pod-{number}")
    pods = guarded.server.requests["GET pods"]
    await guarded.looks(5)
    assert guarded.server.requests["GET pods"] == pods


async def test_an_api_server_that_is_away_ends_nothing(guarded: Guarded) -> None:
    await guarded.pod("a")
    await guarded.looks(1)
    guarded.server.failing.add("GET networkpolicies")
    await guarded.looks(3 * UNMENDED_LOOKS)
    guarded.server.failing.clear()
    await guarded.api.call("DELETE", f"{guarded.policies}/{POLICY_NAME}")
    await guarded.until(guarded.is_held)
    assert list(guarded.server.all("pods")) == ["a"]
    assert not guarded.guard.ended


async def test_a_supervisors_configmap_that_was_deleted_is_made_again_and_another_program_is_refused(
    guarded: Guarded,
) -> None:
    name = await guarded.pods.have_supervisor("amd64")
    at = guarded.api.path("configmaps", name)
    assert SUPERVISOR_EVERY > 1
    await guarded.api.call("DELETE", at)
    await guarded.until(lambda: name in guarded.server.all("configmaps"))
    other = {"metadata": {"name": name}, "immutable": True, "binaryData": {"supervisor": "AAAA"}}
    await guarded.api.call("DELETE", at)
    with suppress(ApiRefused):  # the guard was faster
        await guarded.api.call("POST", guarded.api.path("configmaps"), other)
    guarded.server.all("configmaps")[name]["binaryData"] = other["binaryData"]
    with pytest.raises(EngineError, match=f"ConfigMap {name} holds another program"):
        await Pods(guarded.api).have_supervisor("amd64")


@pytest.mark.parametrize(
    ("selector", "selects"),
    [
        ({}, True),
        ({"matchLabels": {"a": "1"}}, True),
        ({"matchLabels": {"a": "2"}}, False),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]}, True),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, False),
        ({"matchExpressions": [{"key": "b", "operator": "NotIn", "values": ["1"]}]}, True),
        ({"matchExpressions": [{"key": "b", "operator": "Exists"}]}, False),
        ({"matchExpressions": [{"key": "b", "operator": "DoesNotExist"}]}, True),
        ({"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, False),
        ({"matchExpressions": [{"key": "a", "operator": "Later", "values": []}]}, True),
    ],
)
def test_what_a_policy_selects_is_what_kubernetes_says(selector: dict[str, Any], selects: bool) -> None:
    policy = {"metadata": {"name": "p"}, "spec": {**OPEN_EGRESS, "podSelector": selector}}
    assert opener([policy], {"a": "1"}) == ("p" if selects else "")


@pytest.mark.parametrize(
    "spec",
    [
        {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
        {"podSelector": {}, "policyTypes": ["Ingress"], "egress": [{}]},
        {"podSelector": {}, "ingress": None, "egress": []},
    ],
    ids=["denies all", "rules of a way that it does not name", "no rules"],
)
def test_a_policy_that_lets_nothing_through_opens_nothing(spec: dict[str, Any]) -> None:
    assert opener([{"metadata": {"name": "p"}, "spec": spec}], {}) == ""
