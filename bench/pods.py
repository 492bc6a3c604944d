"""From one pod to a hundred on a cluster of two nodes, through one server."""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio
from doors import Served, client_of, serving
from mcp.client.client import Client
from mcp.types import CallToolRequest, CallToolRequestParams, CallToolResult
from memory import resident, used
from rich.console import Console

HEADING = "## From one pod to a hundred"
STEPS = (1, 10, 30, 60, 100)
#: Tasks that are opened at once, and calls with all of a step's tasks open, in turn of them.
AT_ONCE, CALLS = 8, 1000
#: Seconds of quiet before a measurement, and for the pods of a step to be gone. With fewer pods than this, the host's
#: memory changes more by what else happens there than by them.
SETTLE, GONE, ENOUGH = 5.0, 90.0, 10
#: A pod's bounds: a hundred are to fit. Files are not saved, which would be measured too.
CONFIG = (
    'manifests = []\n[pool]\nwarm = 0\non_exit = "close"\nmax_per_principal = 128\nmax_sandboxes = 128\n'
    "[http]\nmax_calls_per_principal = 128\ncalls_per_minute = 1000000\n"
    '[terminal]\nmemory = "128m"\n[workspace]\nkeep = "0"\nsize = "8m"\n'
)
console = Console(stderr=True)


@dataclass(frozen=True, slots=True)
class Step:
    """With so many pods: milliseconds of calls, seconds, bytes, and seconds of the API server's processor.

    Arguments:
        api_opening, api_calls: beyond what it spends in that time when nobody opens or calls anything.
    """

    pods: int
    first: list[float]
    opening: float
    calls: list[float]
    host: int
    server: int
    api_memory: int
    api_opening: float
    api_calls: float
    requests: float
    closing: float


class Api:
    """The cluster's API server with its etcd, looked at from outside."""

    def __init__(self) -> None:
        self._folder = Path(os.environ["TASKCELL_TEST_CLUSTER"])
        self._kubectl = [os.environ["TASKCELL_TEST_KUBECTL"], "--kubeconfig", os.environ["TASKCELL_TEST_KUBECONFIG"]]

    def _pids(self) -> Iterator[int]:
        for name in ("apiserver", "etcd"):
            yield int((self._folder / "pids" / name).read_text())

    async def rest(self) -> float:
        """Wait until all is quiet; returns the seconds of processor time that it spends in a second then."""
        await anyio.sleep(SETTLE)
        spent, began = self.processor(), time.perf_counter()
        await anyio.sleep(SETTLE)
        return (self.processor() - spent) / (time.perf_counter() - began)

    def processor(self) -> float:
        """Seconds of processor time so far."""
        total = 0
        for pid in self._pids():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total / os.sysconf("SC_CLK_TCK")

    def memory(self) -> int:
        return sum(resident(pid) for pid in self._pids())

    def requests(self) -> float:
        """Requests that it has answered, of everybody."""
        lines = self.ask("get", "--raw", "/metrics").splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("apiserver_request_total{"))

    def ask(self, *words: str) -> str:
        return subprocess.run([*self._kubectl, *words], check=True, capture_output=True, text=True).stdout

    def pods(self) -> int:
        """Pods of sandboxes whose objects are there."""
        return len(self.ask("get", "pods", "--selector", "taskcell.dev/sandbox=1", "--output", "name").split())


async def call(client: Client, tool: str, **arguments: object) -> float:
    """Milliseconds of one call."""
    request = CallToolRequest(params=CallToolRequestParams(name=tool, arguments=arguments))
    began = time.perf_counter()
    answer = await client.session.send_request(request, CallToolResult)
    if answer.is_error:
        raise SystemExit(f"A call went wrong: {answer}")
    return (time.perf_counter() - began) * 1000


async def at_once(client: Client, tool: str, tasks: Sequence[str], **arguments: object) -> list[float]:
    """A call for each task, AT_ONCE of them at a time."""
    places, taken = anyio.Semaphore(AT_ONCE), []

    async def one(task: str) -> None:
        async with places:
            taken.append(await call(client, tool, task_id=task, **arguments))

    async with anyio.create_task_group() as group:
        for task in tasks:
            group.start_soon(one, task)
    return taken


async def until_gone(api: Api) -> None:
    """Wait until no pod's object is left."""
    with anyio.fail_after(GONE):
        while api.pods():  # noqa: ASYNC110 - in another program
            await anyio.sleep(1)


async def step(pods: int, client: Client, served: Served, api: Api) -> Step:
    """Open so many tasks, call them in turn, close them, and wait until their pods are gone."""
    console.print(f"==> {pods} pods")
    tasks = [f"task {pods}.{number}" for number in range(pods)]
    idle = await api.rest()
    host, asked, spent, began = used(), api.requests(), api.processor(), time.perf_counter()
    first = await at_once(client, "terminal", tasks, command="echo hello")
    opening = time.perf_counter() - began
    await anyio.sleep(SETTLE)
    api_opening = api.processor() - spent - idle * (time.perf_counter() - began)
    requests, host = api.requests() - asked, used() - host
    idle, spent, began = await api.rest(), api.processor(), time.perf_counter()
    calls = [await call(client, "terminal", command="echo hello", task_id=tasks[n % pods]) for n in range(CALLS)]
    api_calls = api.processor() - spent - idle * (time.perf_counter() - began)
    server, memory = served.resident(), api.memory()
    began = time.perf_counter()
    await at_once(client, "sandbox", tasks, action="close")
    closing = time.perf_counter() - began
    await until_gone(api)
    return Step(pods, first, opening, calls, host, server, memory, api_opening, api_calls, requests, closing)


async def measure(folder: Path, engine: str, steps: Sequence[int]) -> list[Step]:
    """Each step through the same server.

    Arguments:
        engine: the tables of the configuration that name the cluster.
    """
    api = Api()
    with serving(folder, CONFIG + engine) as served:
        async with client_of(served.url) as client:
            await call(client, "terminal", command="true", task_id="before")
            await call(client, "sandbox", action="close", task_id="before")
            await until_gone(api)
            return [await step(pods, client, served, api) for pods in steps]


def section(steps: Sequence[Step]) -> str:
    """The section of the page."""
    heads = (
        "pods", "first command, p50 / p99", "all open after", "a call, p50 / p99", "host memory, each", "server",
        "API server and etcd", "their processor, a pod / a call", "requests, a pod", "all closed after",
    )  # fmt: skip
    return "\n".join(
        [
            HEADING,
            "",
            "`make bench-kubernetes` writes this section: one server over HTTP, a cluster of two nodes and the client",
            f"on one machine with {os.cpu_count()} cores. Nothing stood ready; {AT_ONCE} tasks were opened at a time,",
            f"and then {CALLS} calls of `echo hello` went to all of them in turn. Requests are everybody's, those of",
            "kubelets and controllers too; the processor's time is what goes beyond that of the idle cluster. The",
            f"ratios matter, not the figures. {time.strftime('%Y-%m-%d')}.",
            "",
            f"| {' | '.join(heads)} |",
            "| --- |" + " --- |" * (len(heads) - 1),
            *map(_row, steps),
            "",
        ]
    )


def _row(one: Step) -> str:
    cells = (
        f"{one.pods}",
        f"{statistics.median(one.first):.0f} / {_p99(one.first):.0f} ms",
        f"{one.opening:.1f} s",
        f"{statistics.median(one.calls):.1f} / {_p99(one.calls):.1f} ms",
        f"{one.host / one.pods / 2**20:.1f} MiB" if one.pods >= ENOUGH else "",
        f"{one.server >> 20} MiB",
        f"{one.api_memory >> 20} MiB",
        f"{1000 * one.api_opening / one.pods:.0f} / {1000 * one.api_calls / len(one.calls):.2f} ms",
        f"{one.requests / one.pods:.0f}",
        f"{one.closing:.1f} s",
    )
    return f"| {' | '.join(cells)} |"


def _p99(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
