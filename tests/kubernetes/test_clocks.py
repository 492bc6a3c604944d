"""Servers of a real cluster whose wall clock is set by days while they serve; the monotonic one goes on as it did."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client

from asking import text_of
from server_pods import ANSWER, FIRST_PORT, ServerPod, ServerPods, server_pods
from taskcell.deployment.cluster.members import TERM
from taskcell.sandbox.wait import DEADLINE_SLACK

pytestmark = [pytest.mark.anyio, pytest.mark.kubernetes]

#: Seconds for the whole test on a busy machine; and after a jump, until whatever would go wrong has gone wrong.
LIMIT, SEEN = 300.0, max(TERM, DEADLINE_SLACK) + 1
#: What the server's clock shows beyond that of the machine, in seconds, at first and then. The certificate of the API
#: server begins today, so that no clock may be behind it.
DAY = 86400
FIRST, STEPS = 2 * DAY, (3 * DAY, DAY)


class Clock:
    """The wall clock of a server: a library before its libc, which a program of this machine makes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "clock"
        self._folder.mkdir()
        source, made = Path(__file__).with_name("clock.c"), self._folder / "clock.so"
        compiler = [sys.executable, "-m", "ziglang", "cc", "-target", "x86_64-linux-gnu.2.31"]
        subprocess.run([*compiler, "-shared", "-fPIC", "-Os", "-o", made, source], check=True, timeout=LIMIT)
        made.chmod(0o755)
        self._folder.chmod(0o755)  # for the server's user
        self.set(FIRST)

    def set(self, more: int) -> None:
        written = self._folder / "written"
        written.write_text(str(more))
        written.chmod(0o644)
        written.rename(self._folder / "more")

    def change(self, pod: dict[str, Any]) -> None:
        """Have a server's pod follow it."""
        (server,) = pod["spec"]["containers"]
        server["env"].append({"name": "LD_PRELOAD", "value": "/clock/clock.so"})
        server["volumeMounts"].append({"name": "clock", "mountPath": "/clock", "readOnly": True})
        pod["spec"]["volumes"].append({"name": "clock", "hostPath": {"path": str(self._folder)}})


def alone(pod: dict[str, Any]) -> None:
    """Take from a server what makes it one of several."""
    (server,) = pod["spec"]["containers"]
    server["env"] = [one for one in server["env"] if one["name"] != "TASKCELL__HTTP__PEER_URL"]
    server["env"].append({"name": "TASKCELL__HTTP__ALLOWED_HOSTS", "value": f'["$(POD_IP):{FIRST_PORT}"]'})


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[ServerPods]:
    async with server_pods(tmp_path, "tc-clocks") as made:
        yield made


@asynccontextmanager
async def session(server: ServerPod) -> AsyncIterator[Client]:
    """A session of the protocol of 2025, which is kept in its server."""
    async with (
        server.http() as http,
        Client(streamable_http_client(f"{server.url}/mcp", http_client=http), mode="legacy") as client,
    ):
        yield client


async def test_a_server_alone_loses_nothing(servers: ServerPods, tmp_path: Path) -> None:
    clock = Clock(tmp_path)

    def change(pod: dict[str, Any]) -> None:
        alone(pod)
        clock.change(pod)

    with anyio.fail_after(LIMIT):
        one = await servers.start("one", 1, change=change)
        async with session(one) as client:
            await one.run("echo mine > file; export SEEN=yes")
            await one.call("sandbox", action="snapshot", name="kept")
            await expires_nothing(one, one, client, clock)
            await one.call("sandbox", task="restored", action="restore", name="kept")
            assert (await one.run("cat file", task="restored"))["stdout"] == "mine\n"


async def test_one_of_two_servers_keeps_its_tasks_and_takes_none(servers: ServerPods, tmp_path: Path) -> None:
    clock = Clock(tmp_path)
    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as starts:
            starts.start_soon(servers.start, "one", 1, FIRST_PORT, clock.change)
            starts.start_soon(servers.start, "two", 2, FIRST_PORT + 1)
        one, two = servers.servers["one"], servers.servers["two"]
        tasks = [f"t{number}" for number in range(4)]
        for task in tasks:
            await two.run(f"echo {task} > file", task)
        before = {task: (await servers.holder(task)).name for task in tasks}
        async with session(one) as client:
            await one.run("echo mine > file; export SEEN=yes")
            await expires_nothing(one, two, client, clock)
        assert {task: (await servers.holder(task)).name for task in tasks} == before
        for task in tasks:
            assert (await one.run("cat file", task))["stdout"] == f"{task}\n"


async def expires_nothing(one: ServerPod, other: ServerPod, client: Client, clock: Clock) -> None:
    """Set the clock of `one` while a command of its task `t` runs, and another one begins before each time."""
    async with one.http() as http:
        named = await http.put("/tasks/t", json={"lifetime": 3600})
        assert named.status_code == 200
    long = await other.run("while :; do sleep 1; echo on >> on; done", wait=0.2, timeout=600)
    for step in STEPS:
        limited = await other.run(f"sleep {LIMIT}", background=True, timeout=SEEN / 2)
        begun: list[dict[str, Any]] = []

        async def short(begun: list[dict[str, Any]]) -> None:
            begun.append(await other.run(f"sleep {SEEN}; echo over", wait=2, timeout=LIMIT))

        async with anyio.create_task_group() as calls:  # the clock is set while its call waits
            calls.start_soon(short, begun)
            while len(await running(other)) < 3:
                await anyio.sleep(0.1)
            clock.set(step)
        assert (await ended(other, limited))["status"] == "timed_out"
        assert (await ended(other, begun[0]))["stdout"] == "over\n"
        for server in (one, other):
            assert (await server.run("cat file; echo $SEEN"))["stdout"] == "mine\nyes\n"
            (left,) = await running(server)
            assert left["process_id"] == long["process_id"]
            assert SEEN <= left["age_s"] < LIMIT
        assert text_of(await client.call_tool("terminal", {"command": "echo same", "task_id": "t"})).startswith(
            "same\n"
        )
        async with one.http() as http:
            (found,) = [task for task in (await http.get("/tasks")).json()["tasks"] if task["task_id"] == "t"]
            assert 3000 < found["ends_in_s"] <= 3600


async def running(server: ServerPod) -> list[dict[str, Any]]:
    listed = await server.call("process", action="list")
    return [found for found in listed["processes"] if found["status"] == "running"]


async def ended(server: ServerPod, begun: dict[str, Any]) -> dict[str, Any]:
    return await server.call("process", action="wait", process_id=begun["process_id"], wait=ANSWER, cursor=0)
