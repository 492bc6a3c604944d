"""Measure calls of two servers in turn, one with sandboxes on Docker and one with pods on a cluster.

python bench/kubernetes.py [--write docs/kubernetes.md]     with TASKCELL_TEST_KUBECONFIG; `make bench-kubernetes`
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
from mcp import StdioServerParameters
from mcp.client.client import Client
from mcp.client.stdio import stdio_client
from page import write_section
from run import CONFIG, TASKS, Way, first_calls, measure, taskcell_way

HEADING = "## Measured beside Docker"
#: What the two servers do not share.
ENGINES = {
    "Docker": "",
    "Kubernetes": '[engine]\nkind = "kubernetes"\nhost = "{kubeconfig}"\n[policy]\nallow_unenforced = ["pids"]\n',
}


def server(folder: Path, engine: str) -> StdioServerParameters:
    """How the server of an engine is started, with its configuration and state in a folder of its own."""
    place = folder / engine
    place.mkdir()
    config = place / "taskcell.toml"
    own = ENGINES[engine].format(kubeconfig=os.environ["TASKCELL_TEST_KUBECONFIG"])
    config.write_text(f"manifests = []\n{CONFIG}{own}", encoding="utf-8")
    arguments = ["-m", "taskcell", "serve", "--config", str(config)]
    env = {**os.environ, "XDG_STATE_HOME": str(place)}
    return StdioServerParameters(command=sys.executable, args=arguments, cwd=place, env=env)


def table(ways: dict[str, Way], first: dict[str, list[float]]) -> str:
    """The section of the page."""
    heads = ("engine", "`echo hello`, median", "95 % within", f"{TASKS} tasks at once", "first call of a new task")
    rows = [
        f"| {name} | {way.median:.2f} ms | {way.p95:.2f} ms | {way.per_second:.0f} /s "
        f"| {statistics.median(first[name]):.0f} ms |"
        for name, way in ways.items()
    ]
    return "\n".join(
        [
            HEADING,
            "",
            "`make bench-kubernetes` writes this section: two servers on one machine, called in turn over stdio,",
            "one with the machine's Docker and one with a cluster of two nodes on the same machine. A sandbox stood",
            f"ready for each new task. The ratios matter, not the figures. {time.strftime('%Y-%m-%d')}.",
            "",
            f"| {' | '.join(heads)} |",
            "| --- | --- | --- | --- | --- |",
            *rows,
            "",
        ]
    )


async def run() -> str:
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as clients:
            ways = {}
            for engine in ENGINES:
                client = await clients.enter_async_context(Client(stdio_client(server(Path(folder), engine))))
                ways[engine] = taskcell_way(client, engine)
            await measure(list(ways.values()), [])
            first = {engine: await first_calls(way) for engine, way in ways.items()}
    return table(ways, first)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure taskcell on Docker and on a cluster, in one run.")
    parser.add_argument("--write", type=Path, help="write the section to this page as well")
    options = parser.parse_args()
    found = anyio.run(run, backend_options={"use_uvloop": True})
    if options.write:
        write_section(options.write, HEADING, found)
    print(found)


if __name__ == "__main__":
    main()
