"""A server of a real cluster that is stopped between its claim on a task and the task's pod."""

from __future__ import annotations

import signal
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

import admission
from cluster import CLUSTER_TIMEOUT
from server_pods import FIRST_PORT, ServerPods, server_pods

pytestmark = [pytest.mark.anyio, pytest.mark.kubernetes]

#: Seconds for the whole test on a busy machine.
LIMIT = 300.0


class Held:
    """The next thing that is made in the namespace waits until it is let go; everything else is made at once."""

    def __init__(self) -> None:
        self._is_wanted = False
        self._begun, self._may_go = threading.Event(), threading.Event()

    def review(self, request: dict[str, Any]) -> str:
        if self._is_wanted:
            self._is_wanted = False
            self._begun.set()
            self._may_go.wait(CLUSTER_TIMEOUT)
        return ""

    def hold(self) -> threading.Event:
        """Hold the next one; the event is set once it is there."""
        self._begun, self._may_go = threading.Event(), threading.Event()
        self._is_wanted = True
        return self._begun

    async def begun(self) -> None:
        assert await anyio.to_thread.run_sync(self._begun.wait, CLUSTER_TIMEOUT)

    def let_go(self) -> None:
        self._may_go.set()


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[ServerPods]:
    async with server_pods(tmp_path, "tc-stopped") as made:
        async with anyio.create_task_group() as starts:
            starts.start_soon(made.start, "one", 1, FIRST_PORT)
            starts.start_soon(made.start, "two", 2, FIRST_PORT + 1)
        yield made


@pytest.mark.parametrize("kind", ["configmaps", "pods"])
async def test_a_server_that_was_stopped_before_its_pod_was_made_leaves_the_task_to_the_one_that_has_it(
    servers: ServerPods, tmp_path: Path, kind: str
) -> None:
    """It had checked its claim, and its request for the pod, or for what the pod needs, was on its way."""
    one, two = servers.servers["one"], servers.servers["two"]
    held, answers, task = Held(), list[dict[str, Any]](), ""

    async def call(task: str, begun: threading.Event) -> None:
        answers.append(await one.run("echo mine >> ran; cat ran", task))
        begun.set()  # the other server has taken it, and asked for nothing: it has its ConfigMap already

    with anyio.fail_after(LIMIT):
        async with admission.reviewed(servers.admin, tmp_path, held.review, [kind]), anyio.create_task_group() as calls:
            for number in range(20):  # until it is one that this server takes itself
                task = f"t{number}"
                calls.start_soon(call, task, held.hold())
                await held.begun()
                if await servers.holder(task) is one:
                    break
                held.let_go()
            one.signal(signal.SIGSTOP)
            try:
                theirs = await two.run("echo theirs >> ran; cat ran", task)
            finally:
                held.let_go()
                one.signal(signal.SIGCONT)
        print(theirs, answers[-1])
        assert theirs["stdout"] == "theirs\n"
        assert answers[-1]["stdout"] == "theirs\nmine\n"
        assert await servers.holder(task) is two
        for server in (one, two):
            assert (await server.run("cat ran", task))["stdout"] == "theirs\nmine\n"
        while len(await servers.sandboxes(task)) != 1:
            await anyio.sleep(0.2)
