"""More tasks than places: all go through one server at once, beside plain docker in the same run."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import docker
from mcp import StdioServerParameters
from mcp.client.client import Client
from mcp.client.stdio import stdio_client
from mcp.types import CallToolRequest, CallToolRequestParams, CallToolResult
from memory import resident, server_pid, used
from rich.console import Console

COMMAND = "echo hello"
#: Sandboxes that are opened at once, where that is bounded.
AT_ONCE = 8
#: Bounds of one sandbox: three hundred of them are to fit.
LIMITS = '[terminal]\nmemory = "256m"\n[workspace]\nsize = "32m"\n'
#: Places of the server that has more tasks than places, and containers that plain docker makes for comparison.
PLACES, PLAIN = 64, 64
#: Seconds that a task waits for a place: all have theirs well within that, even on a busy machine.
PATIENCE = 3600
console = Console(stderr=True)


@dataclass(frozen=True)
class Queue:
    """What was measured of more tasks than places: seconds for all, for each, for plain docker's; bytes at the peak.

    Arguments:
        made: containers that the engine created for all tasks, and as ready ones when no task waited any more.
    """

    tasks: int
    images: int
    failures: int
    made: int
    whole: float
    each: list[float]
    server: int
    host: int
    plain: float

    def at(self, share: float) -> float:
        """Seconds after which that share of the tasks had an answer."""
        return sorted(self.each)[min(len(self.each) - 1, int(share * len(self.each)))]


async def queue(tasks: int, images: int) -> Queue:
    """Send all tasks through one server at once; each is opened with its environment and runs one command."""
    api = docker.from_env().api
    names = [f"taskcell-scale/{number}:latest" for number in range(images)]
    for number, name in enumerate(names):
        made = api.create_container("taskcell/base:latest", labels={"number": str(number)})["Id"]
        repository, tag = name.split(":")
        api.commit(made, repository=repository, tag=tag, changes=[f"LABEL number={number}"])
        api.remove_container(made)
    try:
        console.print(f"==> {PLAIN} containers by plain docker")
        plain = await plain_docker(api, names)
        console.print(f"==> {tasks} tasks with {images} images and {PLACES} places")
        return await through_one_server(tasks, names, plain)
    finally:
        for name in names:
            api.remove_image(name, force=True)


async def plain_docker(api: docker.APIClient, images: list[str]) -> float:
    """Seconds for a container that is made, started, runs one command, and is removed; AT_ONCE of them at once."""

    def one(number: int) -> None:
        host = api.create_host_config(network_mode="none", mem_limit="256m")
        made = api.create_container(images[number % len(images)], ["sleep", "60"], host_config=host)["Id"]
        api.start(made)
        api.exec_start(api.exec_create(made, ["bash", "-c", COMMAND])["Id"])
        api.remove_container(made, force=True, v=True)

    turns, began = anyio.CapacityLimiter(AT_ONCE), time.perf_counter()
    async with anyio.create_task_group() as making:
        for number in range(PLAIN):
            making.start_soon(partial(anyio.to_thread.run_sync, one, number, limiter=turns))
    return (time.perf_counter() - began) / PLAIN


async def through_one_server(tasks: int, images: list[str], plain: float) -> Queue:
    each: list[float] = []
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as folder, created() as made:
        async with Client(stdio_client(server_with_queue(images, Path(folder)))) as client:
            pid, host_before, began = server_pid(), used(), time.perf_counter()
            peak = 0

            async def one(number: int) -> None:
                task = f"task {number}"
                opened = {"action": "open", "task_id": task, "environment": f"e{number % len(images)}"}
                for tool, arguments in (("sandbox", opened), ("terminal", {"command": COMMAND, "task_id": task})):
                    params = CallToolRequestParams(name=tool, arguments=arguments)
                    answer = await client.session.send_request(CallToolRequest(params=params), CallToolResult)
                    if answer.is_error:
                        failures.append(str(answer))
                each.append(time.perf_counter() - began)
                if len(each) % 50 == 0:
                    console.print(f"    {len(each)} of {tasks} after {each[-1]:.0f} s")

            async def watch() -> None:
                nonlocal peak
                while True:
                    peak = max(peak, used() - host_before)
                    await anyio.sleep(1)

            async with anyio.create_task_group() as watching:
                watching.start_soon(watch)
                async with anyio.create_task_group() as running:
                    for number in range(tasks):
                        running.start_soon(one, number)
                watching.cancel_scope.cancel()
            whole = time.perf_counter() - began
            server = resident(pid)
    for failure in failures[:3]:
        console.print(failure)
    return Queue(tasks, len(images), len(failures), len(made), whole, each, server, peak, plain)


@contextmanager
def created() -> Iterator[list[str]]:
    """The containers that the engine creates while this is entered. It remembers a few hundred events alone, so they
    are read as they come."""
    found: list[str] = []
    wanted = {"type": "container", "event": "create"}
    events = docker.from_env(timeout=PATIENCE).api.events(filters=wanted, decode=True)

    def read() -> None:
        found.extend(str(event["id"]) for event in events)

    reading = threading.Thread(target=read, daemon=True)
    reading.start()
    try:
        yield found
    finally:
        events.close()
        reading.join(PATIENCE)


def server_with_queue(images: list[str], folder: Path) -> StdioServerParameters:
    """How a server with PLACES places is started that has an environment for each image."""
    config = folder / "taskcell.toml"
    pool = f'[pool]\non_exit = "close"\nmax_sandboxes = {PLACES}\nacquire_timeout = "{PATIENCE}s"\n'
    environments = "".join(f'[environments.e{number}]\nimage = "{image}"\n' for number, image in enumerate(images))
    config.write_text(f"manifests = []\n{pool}{LIMITS}{environments}", encoding="utf-8")
    arguments = ["-m", "taskcell", "serve", "--config", str(config)]
    env = {**os.environ, "XDG_STATE_HOME": str(folder)}
    return StdioServerParameters(command=sys.executable, args=arguments, cwd=folder, env=env)


def queue_lines(found: Queue) -> list[str]:
    """The figures of a queue as docs/scale.md shows them."""
    return [
        "",
        "## More tasks than places",
        "",
        f"{found.tasks} tasks at once, in turn of {found.images} environments with an image each, through one server",
        f"with `max_sandboxes = {PLACES}`: each is opened, runs `{COMMAND}`, and makes room for the next one. Its",
        f"files are kept. Beside it plain docker makes {PLAIN} containers, {AT_ONCE} at once: create, start, exec,",
        "remove.",
        "",
        "| what | figure |",
        "| --- | --- |",
        f"| calls that failed | {found.failures} |",
        f"| containers made for each task, ready ones at the end with them | {found.made / found.tasks:.2f} |",
        f"| tasks a second | {found.tasks / found.whole:.2f} |",
        f"| containers a second by plain docker | {1 / found.plain:.2f} |",
        f"| a task has its answer after, median | {found.at(0.5):.0f} s |",
        f"| a task has its answer after, p99 | {found.at(0.99):.0f} s |",
        f"| memory of the server afterwards | {found.server / 2**20:.0f} MiB |",
        f"| memory of the host at the peak | {found.host / 2**20:.0f} MiB |",
    ]
