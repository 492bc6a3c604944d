"""One watch for all pods of a server: who waits for a pod hears of it, and ends are said, whatever fails meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from api_server import ApiServer, Refusal, api_server
from observe import HOST_TIMEOUT
from taskcell.engine.kubernetes.api import Api
from taskcell.engine.kubernetes.pods import Pods

pytestmark = pytest.mark.anyio

INSTANCE, CELL = "one", "c"


class Watched:
    """A server's pods, with their watch on until the end of the test."""

    def __init__(self, server: ApiServer, api: Api) -> None:
        self.server, self.api, self.pods = server, api, Pods(api)
        self.ended: list[str] = []

    async def make(self, name: str) -> dict[str, Any]:
        meta = {"name": name, "labels": {"taskcell.dev/instance": INSTANCE}, "annotations": {}}
        body = {"metadata": meta, "spec": {"containers": [{"name": CELL}]}, "status": {"phase": "Pending"}}
        return await self.api.call("POST", self.api.path("pods"), body)

    async def set(self, pod: dict[str, Any], phase: str, restarts: int = 0) -> None:
        """The kubelet says how a pod is."""
        one = {"name": CELL, "restartCount": restarts, "state": {"running": {}}}
        meta = {key: value for key, value in pod["metadata"].items() if key != "resourceVersion"}
        body = pod | {"metadata": meta, "status": {"phase": phase, "containerStatuses": [one]}}
        await self.api.call("PUT", self.api.path("pods", pod["metadata"]["name"]), body)

    async def on(self, watches: int = 1) -> None:
        """Until the watch has been begun so many times."""
        await self.until(lambda: self.server.requests["WATCH pods"] >= watches)

    async def until(self, holds: Any) -> None:
        with anyio.fail_after(HOST_TIMEOUT):
            while not holds():
                await anyio.sleep(0.01)


@pytest.fixture
async def watched() -> AsyncIterator[Watched]:
    async with api_server() as server:
        api = server.api()
        made = Watched(server, api)
        async with anyio.create_task_group() as group:
            group.start_soon(made.pods.watch.run, INSTANCE, made.ended.append)
            await made.on()
            yield made
            group.cancel_scope.cancel()
        await api.aclose()


def id_of(pod: dict[str, Any], restarts: int = 0) -> str:
    return f"{pod['metadata']['name']}/{pod['metadata']['uid']}/{CELL}/{restarts}"


async def test_twenty_pods_that_start_are_waited_for_by_one_watch(watched: Watched) -> None:
    pods = [await watched.make(f"pod-{number}") for number in range(20)]
    running: list[str] = []

    async def wait(name: str) -> None:
        found = await watched.pods.until_running(name, CELL)
        running.append(found["metadata"]["name"])

    with anyio.fail_after(HOST_TIMEOUT):
        async with anyio.create_task_group() as waiting:
            for pod in pods:
                waiting.start_soon(wait, pod["metadata"]["name"])
            await watched.until(lambda: watched.server.requests["GET pods"] >= 20)
            for pod in pods:
                await watched.set(pod, "Running")
    assert len(running) == 20
    assert watched.server.requests["WATCH pods"] == 1


async def test_a_pod_is_waited_for_without_the_watch_too() -> None:
    async with api_server() as server:
        api = server.api()
        alone = Watched(server, api)
        pod = await alone.make("pod")
        with anyio.fail_after(HOST_TIMEOUT):
            async with anyio.create_task_group() as waiting:
                waiting.start_soon(alone.pods.until_running, "pod", CELL)
                await alone.on()
                await alone.set(pod, "Running")
        await api.aclose()


async def test_ends_and_restarts_are_said_and_idle_pods_cost_no_request(watched: Watched) -> None:
    pod, evicted, deleted = [await watched.make(name) for name in ("pod", "evicted", "deleted")]
    for one in (pod, evicted, deleted):
        await watched.set(one, "Running")
    await watched.set(pod, "Running", restarts=1)
    await watched.until(lambda: id_of(pod) in watched.ended)
    await watched.set(evicted, "Failed")
    await watched.until(lambda: id_of(evicted) in watched.ended)
    await watched.api.call("DELETE", watched.api.path("pods", "deleted"))
    await watched.until(lambda: id_of(deleted) in watched.ended)
    assert set(watched.ended) == {id_of(pod), id_of(evicted), id_of(deleted)}
    assert watched.server.requests["WATCH pods"] == 1
    assert watched.server.requests["GET pods"] == 1  # the list that it began with


async def test_a_watch_that_ends_is_begun_again_where_it_was(watched: Watched) -> None:
    pod = await watched.make("pod")
    watched.server.end_watches()
    await watched.set(pod, "Failed")
    await watched.until(lambda: id_of(pod) in watched.ended)
    assert watched.server.requests["WATCH pods"] == 2
    assert watched.server.requests["GET pods"] == 1


async def test_what_happened_too_long_ago_to_be_watched_is_listed(watched: Watched) -> None:
    pod, other = await watched.make("pod"), await watched.make("other")
    for one in (pod, other):
        await watched.set(one, "Running")
    await watched.set(pod, "Running", restarts=1)
    await watched.until(lambda: id_of(pod) in watched.ended)
    watched.server.failing.add("WATCH pods")
    watched.server.end_watches()
    await watched.api.call("DELETE", watched.api.path("pods", "other"))
    watched.server.end_watches(forget=True)
    watched.server.failing.clear()
    await watched.until(lambda: id_of(other) in watched.ended)
    assert watched.server.requests["GET pods"] >= 2


async def test_an_api_server_that_fails_is_asked_again_and_heard_again(watched: Watched) -> None:
    pod = await watched.make("pod")
    watched.server.failing.add("WATCH pods")
    watched.server.end_watches()
    await watched.on(4)
    watched.server.failing.clear()
    await watched.set(pod, "Failed")
    await watched.until(lambda: id_of(pod) in watched.ended)


async def test_one_that_is_too_busy_is_asked_again_as_it_is_by_any_request(watched: Watched) -> None:
    pod = await watched.make("pod")
    watched.server.refusing = Refusal(429, "TooManyRequests", "busy")
    watched.server.end_watches(forget=True)
    await anyio.sleep(0.2)
    watched.server.refusing = None
    await watched.set(pod, "Failed")
    await watched.until(lambda: id_of(pod) in watched.ended)
