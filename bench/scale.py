"""Open many sandboxes at once, and measure what each costs and whether calls get slower.

python bench/scale.py [--sandboxes 300] [--tasks 500] [--images 20] [--write docs/scale.md]

Then more tasks than there are places go through one server, with an environment for each of several images, all at
once; and as many containers are made by plain docker beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import anyio
import docker
from mcp import StdioServerParameters
from mcp.client.client import Client
from mcp.client.stdio import stdio_client
from mcp.types import CallToolRequest, CallToolRequestParams, CallToolResult
from memory import resident, server_pid, used
from rich.console import Console
from turns import AT_ONCE, COMMAND, LIMITS, Queue, queue, queue_lines

#: Calls of a measurement; and seconds of quiet before one, for the engine takes things apart after it has answered.
CALLS, SETTLE = 200, 5.0
console = Console(stderr=True)


async def call(client: Client, task: int) -> float:
    """Milliseconds of one call."""
    params = CallToolRequestParams(name="terminal", arguments={"command": COMMAND, "task_id": f"task {task}"})
    began = time.perf_counter()
    answer = await client.session.send_request(CallToolRequest(params=params), CallToolResult)
    if getattr(answer.content[0], "text", "") != "hello\n":
        raise SystemExit(f"A call went wrong: {answer}")
    return (time.perf_counter() - began) * 1000


async def median_call(client: Client, tasks: int) -> float:
    await anyio.sleep(SETTLE)
    return statistics.median([await call(client, number % tasks) for number in range(CALLS)])


async def open_all(client: Client, sandboxes: int) -> None:
    numbers = iter(range(1, sandboxes))

    async def some() -> None:
        for number in numbers:
            await call(client, number)

    async with anyio.create_task_group() as opening:
        for _ in range(AT_ONCE):
            opening.start_soon(some)


@dataclass(frozen=True)
class Figures:
    """What was measured: bytes for each sandbox, milliseconds for a call, seconds for the opening and the end."""

    sandboxes: int
    server_each: float
    host_each: float
    alone: float
    among: float
    spread: float
    opening: float
    closing: float


async def measure(sandboxes: int) -> Figures:
    """Open that many sandboxes in a server of its own, call them, and end the server."""
    with tempfile.TemporaryDirectory() as folder:
        async with Client(stdio_client(server_with_room_for(sandboxes, Path(folder)))) as client:
            pid = server_pid()
            await call(client, 0)
            alone = await median_call(client, 1)
            before, host_before = resident(pid), used()
            console.print(f"==> {sandboxes} sandboxes")
            began = time.perf_counter()
            await open_all(client, sandboxes)
            opening = time.perf_counter() - began
            among = await median_call(client, 1)
            spread = await median_call(client, sandboxes)
            each = (resident(pid) - before) / (sandboxes - 1)
            host_each = (used() - host_before) / (sandboxes - 1)
            ended = time.perf_counter()
        closing = time.perf_counter() - ended
    return Figures(sandboxes, each, host_each, alone, among, spread, opening, closing)


def server_with_room_for(sandboxes: int, folder: Path) -> StdioServerParameters:
    """How a server is started whose configuration and state are in the folder."""
    config = folder / "taskcell.toml"
    bounds = f'[pool]\nwarm = 0\non_exit = "close"\nmax_per_principal = {sandboxes}\nmax_sandboxes = {sandboxes}\n'
    config.write_text(bounds + LIMITS, encoding="utf-8")
    arguments = ["-m", "taskcell", "serve", "--config", str(config)]
    env = {**os.environ, "XDG_STATE_HOME": str(folder)}
    return StdioServerParameters(command=sys.executable, args=arguments, cwd=folder, env=env)


def page(found: Figures, queued: Queue) -> str:
    """The figures as docs/scale.md shows them."""
    version, cores = docker.from_env().version(), os.cpu_count()
    times = f"{found.among / found.alone:.2f} times"
    spread = f"{found.spread / found.alone:.2f} times"
    return "\n".join(
        [
            "# Many sandboxes at once",
            "",
            f"`make bench-scale` writes this page; do not edit it. One run with {found.sandboxes} sandboxes open, on",
            f"{cores} cores. The command is `{COMMAND}`, called {CALLS} times for each figure. The ratios matter, not",
            "the figures.",
            "",
            "| what | figure |",
            "| --- | --- |",
            f"| memory of the server for each idle sandbox | {found.server_each / 1024:.0f} KiB |",
            "| memory of the host for each idle sandbox, with the engine's processes | "
            f"{found.host_each / 2**20:.1f} MiB |",
            f"| a call with 1 sandbox open, median | {found.alone:.2f} ms |",
            f"| a call of one task with {found.sandboxes} open, median | {found.among:.2f} ms, {times} |",
            f"| calls of all {found.sandboxes} tasks in turn, median | {found.spread:.2f} ms, {spread} |",
            f"| opening all, {AT_ONCE} at once | {found.opening:.0f} s |",
            f"| the end of the server, all sandboxes with it | {found.closing:.1f} s |",
            *queue_lines(queued),
            "",
            f"Engine: Docker {version['Version']}, kernel {version['KernelVersion']}; {time.strftime('%Y-%m-%d')}.",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Open many sandboxes at once and measure what they cost.")
    parser.add_argument("--sandboxes", type=int, default=300)
    parser.add_argument("--tasks", type=int, default=500, help="tasks that go through one server with fewer places")
    parser.add_argument("--images", type=int, default=20, help="environments that they are opened with")
    parser.add_argument("--write", type=Path, help="write the page to this file as well")
    options = parser.parse_args()
    text = page(asyncio.run(measure(options.sandboxes)), asyncio.run(queue(options.tasks, options.images)))
    if options.write:
        options.write.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
