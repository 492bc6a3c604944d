"""Measure a call through taskcell beside its peers, in one run, on the same engine and image.

    python bench/run.py [--write docs/benchmarks.md]

The peers get what favours them: a container that runs already, and nothing between them and the engine. The ratios
matter, not the figures: those are this machine's, on this day.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.to_thread
import docker
from docker.models.containers import Container
from doors import client_of, door_of, serving
from mcp import StdioServerParameters
from mcp.client.client import Client
from mcp.client.stdio import stdio_client
from mcp.types import CallToolRequest, CallToolRequestParams, CallToolResult
from page import write_section
from parts import Call, bash_alone, empty_call
from rich.console import Console

IMAGE = "taskcell/base:latest"
COMMAND = "echo hello"
TASKS = 16
#: Rounds of the one-after-the-other measurement, in turn, so that what else the machine does meanwhile hits all alike.
ROUNDS, CALLS_A_ROUND, PEER_CALLS_A_ROUND = 6, 50, 10
#: Seconds between two ways: the engine still takes an exec apart after its caller has the answer.
SETTLE = 0.5
#: Rounds with all tasks at once, and calls of each task in one.
BURSTS, CALLS_A_BURST, PEER_CALLS_A_BURST = 4, 12, 2
NEW_TASKS = 5
#: Seconds between two new tasks: the server looks once a second whether one more is to be made ready, and makes it.
WARMING = 2.0
CONFIG = (
    '[pool]\nmax_per_principal = 64\nmax_sandboxes = 64\non_exit = "close"\n'
    "[http]\nmax_calls_per_principal = 64\ncalls_per_minute = 1000000\n"
)
#: Containers of a peer are limited as a sandbox is.
LIMITS = {"mem_limit": "2g", "nano_cpus": 1_000_000_000, "pids_limit": 256, "network_mode": "none"}
console = Console(stderr=True)


@dataclass(slots=True)
class Way:
    """One way to run a command in one of TASKS containers, and what was measured of it.

    Arguments:
        call: runs the command in the container of a number.
        weight: calls in a round.
        burst: calls of each task in a burst.
    """

    name: str
    call: Callable[[int], Awaitable[None]]
    weight: int
    burst: int
    single_ms: list[float] = field(default_factory=list)
    burst_calls: int = 0
    burst_seconds: float = 0.0

    async def run_single(self) -> None:
        for _ in range(self.weight):
            began = time.perf_counter()
            await self.call(0)
            self.single_ms.append((time.perf_counter() - began) * 1000)

    async def run_burst(self) -> None:
        async def task(number: int) -> None:
            for _ in range(self.burst):
                await self.call(number)

        began = time.perf_counter()
        async with anyio.create_task_group() as group:
            for number in range(TASKS):
                group.start_soon(task, number)
        self.burst_seconds += time.perf_counter() - began
        self.burst_calls += TASKS * self.burst

    @property
    def median(self) -> float:
        return statistics.median(self.single_ms)

    @property
    def p95(self) -> float:
        return statistics.quantiles(self.single_ms, n=20)[-1]

    @property
    def per_second(self) -> float:
        return self.burst_calls / self.burst_seconds


def taskcell_way(client: Client, door: str) -> Way:
    async def call(number: int) -> None:
        # The request alone: `call_tool` would validate the answer against a schema that it checks anew each time, some
        # milliseconds of the client's own.
        arguments = {"command": COMMAND, "task_id": f"task {number}"}
        request = CallToolRequest(params=CallToolRequestParams(name="terminal", arguments=arguments))
        answer = await client.session.send_request(request, CallToolResult)
        if getattr(answer.content[0], "text", "") != "hello\n":
            raise SystemExit(f"A call went wrong: {answer}")

    return Way(f"taskcell, MCP over {door}", call, CALLS_A_ROUND, CALLS_A_BURST)


def peer_way(name: str, run: Callable[[int], bytes]) -> Way:
    """A peer that blocks: each call in a thread, as many threads as there are tasks."""
    threads = anyio.CapacityLimiter(TASKS)

    async def call(number: int) -> None:
        if await anyio.to_thread.run_sync(run, number, limiter=threads) != b"hello\n":
            raise SystemExit(f"{name} printed something else")

    return Way(name, call, PEER_CALLS_A_ROUND, PEER_CALLS_A_BURST)


def part(name: str, call: Call) -> Way:
    """A part of a call, measured one after the other."""
    return Way(name, call, CALLS_A_ROUND, 0)


def peer_ways(containers: list[Container]) -> list[Way]:
    def by_api(number: int) -> bytes:
        return bytes(containers[number].exec_run(["bash", "-c", COMMAND], user="1000").output)

    def by_cli(number: int) -> bytes:
        argv = ["docker", "exec", "-u", "1000", str(containers[number].id), "bash", "-c", COMMAND]
        return subprocess.run(argv, check=True, capture_output=True).stdout

    return [peer_way("docker-py, `exec_run`", by_api), peer_way("`docker exec`, command line", by_cli)]


async def measure(ways: list[Way], parts: list[Way]) -> None:
    for single in parts:
        await single.call(0)
    for way in ways:
        async with anyio.create_task_group() as warming:
            for number in range(TASKS):
                warming.start_soon(way.call, number)
    console.print("==> one after the other")
    for _ in range(ROUNDS):
        for way in (*ways, *parts):
            await anyio.sleep(SETTLE)
            await way.run_single()
    console.print(f"==> {TASKS} tasks at once")
    for _ in range(BURSTS):
        for way in ways:
            await anyio.sleep(SETTLE)
            await way.run_burst()


async def first_calls(way: Way) -> list[float]:
    """Milliseconds of the first call of a new task, when the server has had time to make a sandbox ready for it."""
    taken = []
    for number in range(NEW_TASKS):
        await anyio.sleep(WARMING)
        began = time.perf_counter()
        await way.call(1000 + number)
        taken.append((time.perf_counter() - began) * 1000)
    return taken


def server_memory() -> str:
    """VmRSS of the server over stdio: a child of this process."""
    for task in Path("/proc/self/task").iterdir():
        for pid in (task / "children").read_text().split():
            command = Path(f"/proc/{pid}/cmdline").read_text()
            if "taskcell" in command and "--http" not in command:
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                return f"{int(next(line for line in lines if line.startswith('VmRSS')).split()[1]) // 1024} MB"
    return "?"


def parts_table(own: Way, parts: list[Way]) -> list[str]:
    """How far a call is from what it cannot do without."""
    rows = [f"| {way.name} | {way.median:.2f} ms | {own.median / way.median:.1f} |" for way in parts]
    return ["| part of a call | median | a call takes so many times as long |", "| --- | --- | --- |", *rows]


def table(ways: list[Way], parts: list[Way], first: list[float], memory: str, engine: str) -> str:
    own = ways[0]
    rows = [
        f"| {way.name} | {way.median:.2f} ms | {way.p95:.2f} ms | {way.median / own.median:.1f} times "
        f"| {way.per_second:.0f} /s | {own.per_second / way.per_second:.1f} times |"
        for way in ways
    ]
    return "\n".join(
        [
            "# Benchmarks",
            "",
            "`make bench` writes this page; do not edit it. It is one run on one machine, with one engine and image.",
            "The peers have a running container, and nothing stands between them and the engine. They are called in",
            "turn with taskcell, so that what else the machine does slows all of them alike. The command is",
            f"`{COMMAND}`; the client is the MCP SDK's own, on uvloop. The ratios matter, not the figures.",
            "",
            f"| way | median | 95 % within | slower than taskcell | {TASKS} tasks at once | lower throughput |",
            "| --- | --- | --- | --- | --- | --- |",
            *rows,
            "",
            *parts_table(own, parts),
            "",
            f"- First call of a new task, with a sandbox kept ready for it: {statistics.median(first):.0f} ms.",
            f"- Memory of the server after this run: {memory}.",
            f"- Engine: {engine}; {time.strftime('%Y-%m-%d')}.",
            "",
        ]
    )


async def run() -> str:
    api = docker.from_env()
    console.print(f"==> {TASKS} containers for the peers")
    containers = [api.containers.run(IMAGE, ["sleep", "infinity"], detach=True, **LIMITS) for _ in range(TASKS)]
    try:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            config = place / "taskcell.toml"
            config.write_text(CONFIG, encoding="utf-8")
            arguments = ["-m", "taskcell", "serve", "--config", str(config)]
            state = {**os.environ, "XDG_STATE_HOME": str(place / "state")}
            server = StdioServerParameters(command=sys.executable, args=arguments, cwd=folder, env=state)
            async with (
                Client(stdio_client(server)) as client,
                bash_alone(place) as alone,
                AsyncExitStack() as doors,
            ):
                stdio = taskcell_way(client, "stdio")
                await stdio.call(0)  # the server opens its local door with its first call
                door = await doors.enter_async_context(client_of("http://localhost", door_of(place / "state")))
                served = doors.enter_context(serving(place / "http", CONFIG))
                http = await doors.enter_async_context(client_of(served.url))
                ways = [
                    stdio,
                    taskcell_way(http, "HTTP"),
                    taskcell_way(door, "the local door"),
                    *peer_ways(containers),
                ]
                parts = [
                    part("`bash -c true`, by the supervisor alone", alone),
                    part("an empty MCP call, `sandbox` `status`", empty_call(client)),
                ]
                await measure(ways, parts)
                first = await first_calls(stdio)
                memory = server_memory()
    finally:
        for container in containers:
            container.remove(force=True)
    version = api.version()
    return table(ways, parts, first, memory, f"Docker {version['Version']}, kernel {version['KernelVersion']}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure taskcell beside docker exec and docker-py.")
    parser.add_argument("--write", type=Path, help="write the page to this file as well")
    options = parser.parse_args()
    # As the server itself: what is measured shall have as little of the client in it as can be.
    page = anyio.run(run, backend_options={"use_uvloop": True})
    if options.write:
        write_section(options.write, "", page)
    print(page)


if __name__ == "__main__":
    main()
