"""Measure two servers in turn, one with sandboxes on Docker and one with pods on a cluster; then a hundred pods.

python bench/kubernetes.py [--write docs/kubernetes.md] [--pods 1,10,30,60,100]

With TASKCELL_TEST_KUBECONFIG, TASKCELL_TEST_CLUSTER and TASKCELL_TEST_KUBECTL: `make bench-kubernetes`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.to_thread
import pods
from doors import Served, client_of, serving
from mcp import StdioServerParameters
from mcp.client.client import Client
from mcp.client.stdio import stdio_client
from mcp.types import CallToolRequest, CallToolRequestParams, CallToolResult
from page import write_section
from run import CONFIG, TASKS, Way, first_calls, measure, taskcell_way

from files import get, put

HEADING = "## Measured beside Docker"
#: MiB of a command's output and of a file, and how often each is measured.
OUTPUT, FILE, REPEATS = 256, 64, 3
#: Fifty sessions of their own that ignore SIGTERM, and seconds after which the call times out.
TREE, TIMEOUT = "for i in $(seq 50); do setsid bash -c 'trap \"\" TERM; sleep 60' & done; wait", 2
#: Files are not saved meanwhile, which would be measured too, and no sandbox stands ready.
FILES = (
    'manifests = []\n[pool]\nwarm = 0\non_exit = "close"\n[workspace]\nkeep = "0"\nsize = "256m"\n'
    "[http]\ncalls_per_minute = 1000000\n"
)
#: What the two servers do not share.
ENGINES = {
    "Docker": "",
    "Kubernetes": '[engine]\nkind = "kubernetes"\nhost = "{kubeconfig}"\n[policy]\nallow_unenforced = ["pids"]\n',
}


def tables(engine: str) -> str:
    """What a server's configuration has for its engine."""
    return ENGINES[engine].format(kubeconfig=os.environ["TASKCELL_TEST_KUBECONFIG"])


def server(folder: Path, engine: str) -> StdioServerParameters:
    """How the server of an engine is started, with its configuration and state in a folder of its own."""
    place = folder / engine
    place.mkdir()
    config = place / "taskcell.toml"
    config.write_text(f"manifests = []\n{CONFIG}{tables(engine)}", encoding="utf-8")
    arguments = ["-m", "taskcell", "serve", "--config", str(config)]
    env = {**os.environ, "XDG_STATE_HOME": str(place)}
    return StdioServerParameters(command=sys.executable, args=arguments, cwd=place, env=env)


@dataclass(slots=True)
class Engine:
    """What was measured of one engine: milliseconds, and MiB/s."""

    way: Way
    warm: list[float] = field(default_factory=list)
    cold: list[float] = field(default_factory=list)
    output: list[float] = field(default_factory=list)
    kill: list[float] = field(default_factory=list)
    into: list[float] = field(default_factory=list)
    out: list[float] = field(default_factory=list)


async def timed(client: Client, command: str, **arguments: object) -> float:
    """Seconds of a command in a task of its own."""
    began = time.perf_counter()
    request = CallToolRequestParams(name="terminal", arguments={"command": command, "task_id": "large", **arguments})
    await client.session.send_request(CallToolRequest(params=request), CallToolResult)
    return time.perf_counter() - began


async def commands(engine: Engine, client: Client) -> None:
    """Output, and the end of a tree of processes that ignore SIGTERM."""
    await timed(client, "true")
    for _ in range(REPEATS):
        engine.output.append(OUTPUT / await timed(client, f"head -c {OUTPUT << 20} /dev/zero"))
        engine.kill.append((await timed(client, TREE, timeout=TIMEOUT) - TIMEOUT) * 1000)


async def files(engine: Engine, served: Served, file: Path) -> None:
    """A file into the task of the bench of files, and out again; and cold starts through the same server."""
    async with client_of(served.url) as client:
        request = CallToolRequestParams(name="terminal", arguments={"command": "true", "task_id": "bench"})
        await client.session.send_request(CallToolRequest(params=request), CallToolResult)
        for _ in range(REPEATS):
            began = time.perf_counter()
            await anyio.to_thread.run_sync(put, served, file)
            middle = time.perf_counter()
            await anyio.to_thread.run_sync(get, served, file.with_suffix(".back"))
            engine.into.append(FILE / (middle - began))
            engine.out.append(FILE / (time.perf_counter() - middle))
        engine.cold = await first_calls(taskcell_way(client, "HTTP"))


def table(engines: dict[str, Engine]) -> str:
    """The section of the page."""
    docker, cluster = engines["Docker"], engines["Kubernetes"]

    def row(what: str, unit: str, of: Callable[[Engine], float], digits: int = 0) -> str:
        one, other = of(docker), of(cluster)
        return f"| {what} | {one:.{digits}f} {unit} | {other:.{digits}f} {unit} | {other / one:.2f} |"

    median = statistics.median
    return "\n".join(
        [
            HEADING,
            "",
            "`make bench-kubernetes` writes this section: two servers on one machine, called in turn, one with the",
            "machine's Docker and one with a cluster of two nodes on the same machine. The ratios matter, not the",
            f"figures. {time.strftime('%Y-%m-%d')}.",
            "",
            "| | Docker | Kubernetes | ratio |",
            "| --- | --- | --- | --- |",
            row("`echo hello`, median", "ms", lambda one: one.way.median, 2),
            row("`echo hello`, 95 % within", "ms", lambda one: one.way.p95, 2),
            row(f"{TASKS} tasks at once", "calls/s", lambda one: one.way.per_second),
            row("first call of a new task, with a sandbox ready", "ms", lambda one: median(one.warm)),
            row("first call of a new task, with none ready", "ms", lambda one: median(one.cold)),
            row(f"{OUTPUT} MiB of output", "MiB/s", lambda one: median(one.output)),
            row(f"a file of {FILE} MiB in, `/files`", "MiB/s", lambda one: median(one.into)),
            row(f"a file of {FILE} MiB out, `/files`", "MiB/s", lambda one: median(one.out)),
            row("time-out of 50 processes that ignore SIGTERM, until the answer", "ms", lambda one: median(one.kill)),
            "",
        ]
    )


async def beside_docker(folder: Path) -> str:
    """Both engines in turn."""
    file = folder / "file"
    file.write_bytes(os.urandom(1 << 20) * FILE)
    async with AsyncExitStack() as clients:
        engines = {}
        opened = {}
        for name in ENGINES:
            opened[name] = await clients.enter_async_context(Client(stdio_client(server(folder, name))))
            engines[name] = Engine(taskcell_way(opened[name], name))
        await measure([one.way for one in engines.values()], [])
        for name, one in engines.items():
            one.warm = await first_calls(one.way)
            await commands(one, opened[name])
    for name, one in engines.items():
        with serving(folder / f"{name} over HTTP", FILES + tables(name)) as served:
            await files(one, served, file)
    return table(engines)


async def run(steps: Sequence[int]) -> tuple[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        found = await pods.measure(Path(folder) / "pods", tables("Kubernetes"), steps)
        return await beside_docker(Path(folder)), pods.section(found)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure taskcell on Docker and on a cluster, in one run.")
    parser.add_argument("--write", type=Path, help="write the section to this page as well")
    parser.add_argument("--pods", default=",".join(map(str, pods.STEPS)), help="open so many at once, in turn")
    options = parser.parse_args()
    steps = [int(number) for number in options.pods.split(",")]
    sections = anyio.run(run, steps, backend_options={"use_uvloop": True})
    for heading, found in zip((HEADING, pods.HEADING), sections, strict=True):
        if options.write:
            write_section(options.write, heading, found)
        print(found)


if __name__ == "__main__":
    main()
