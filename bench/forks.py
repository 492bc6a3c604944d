"""Measure forks of tasks, and trees in and out of them by the Python client beside `docker cp`, in one run.

    python bench/forks.py [--write docs/benchmarks.md] [--megabytes 200] [--forks 50] [--small 100000]

`--small 1000000` takes 11 GB of the machine's memory and half an hour. The ratios matter, not the figures.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import anyio
from doors import Served, serving, until
from page import write_section

from taskcell.client import blocking, connect
from taskcell.client.blocking import Task

HEADING = "## Forks and trees"
ROUNDS = 5
#: Files in one folder of the tree.
FOLDER_FILES = 1000
#: Seconds of quiet before a fork: the engine takes things apart after it has answered.
SETTLE = 2.0
#: MiB of memory beside the workspace: other folders in memory, and what runs.
MORE = 768
CONFIG = (
    'manifests = []\n[pool]\nwarm = 1\nmax_sandboxes = 100\nmax_per_principal = 100\non_exit = "close"\n'
    'acquire_timeout = "30m"\n[policy]\nmax_memory = "16g"\n[workspace]\nkeep = "0"\nsize = "{size}m"\n'
    '[terminal]\nmemory = "{memory}m"\n[http]\nmax_calls_per_principal = 100\n'
)


def config(deployment: str, megabytes: int) -> str:
    return f'deployment = "{deployment}"\n' + CONFIG.format(size=megabytes, memory=megabytes + MORE)


def containers(deployment: str, *more: str) -> list[str]:
    chosen = ["docker", "ps", "--quiet", "--filter", f"label=taskcell.deployment={deployment}", *more]
    return subprocess.check_output(chosen, text=True).split()


@dataclass
class Forks:
    """Seconds for one fork with a ready sandbox, for the copy alone, and for many at once; bytes of the server."""

    one: list[float] = field(default_factory=list)
    copy: list[float] = field(default_factory=list)
    many: float = 0.0
    grown: int = 0


def fork_one(forks: Forks, folder: Path, megabytes: int) -> None:
    """Fork a task with a large workspace, again and again, each time with a ready sandbox."""
    deployment = f"bench-fork-{os.getpid()}"
    with serving(folder, config(deployment, 2 * megabytes + 100)) as served, blocking.connect(served.url) as cell:
        task = cell.open("source")
        task.run(f"head -c {megabytes}M /dev/urandom >file").check()
        for number in range(ROUNDS):
            until(lambda: containers(deployment, "--filter", "name=taskcell-warm-") or None)
            time.sleep(SETTLE)
            began = time.monotonic()
            made = task.fork(f"fork {number}")
            forks.one.append(time.monotonic() - began)
            if made.run("cmp -n 1000 file file && stat -c %s file").check().stdout != b"%d\n" % (megabytes << 20):
                raise SystemExit("A fork is not whole.")
            made.close()
            began = time.monotonic()
            task.run("cp file copied && rm copied").check()
            forks.copy.append(time.monotonic() - began)


def fork_many(forks: Forks, folder: Path, count: int) -> None:
    """Fork one task many times at once; each fork runs a command."""
    with serving(folder, config(f"bench-forks-{os.getpid()}", 64)) as served:
        anyio.run(partial(_fork_many, forks, served, count))


async def _fork_many(forks: Forks, served: Served, count: int) -> None:
    async with connect(served.url) as cell:
        task = await cell.open("source")
        (await task.run("head -c 8M /dev/urandom >file; sha256sum file >sum")).check()
        before, began = served.resident(), time.monotonic()

        async def fork(number: int) -> None:
            (await (await task.fork(f"fork {number}")).run("sha256sum -c sum")).check()
            forks.grown = max(forks.grown, served.resident() - before)

        async with anyio.create_task_group() as forking:
            for number in range(count):
                forking.start_soon(fork, number)
        forks.many = time.monotonic() - began


@dataclass
class Way:
    """One way for trees in and out of a task and its container, with the seconds that it took."""

    name: str
    put: Callable[[Task, str, Path], None]
    get: Callable[[Task, str, Path], None]
    into: list[float] = field(default_factory=list)
    out: list[float] = field(default_factory=list)


def docker_cp(source: str, target: str) -> None:
    subprocess.run(["docker", "cp", source, target], check=True, stdout=subprocess.DEVNULL)


def ways() -> list[Way]:
    return [
        Way(
            "`taskcell.client`",
            lambda task, _, tree: task.upload(tree, "tree"),
            lambda task, _, back: task.download("tree", back),
        ),
        Way(
            "`docker cp`",
            lambda _, container, tree: docker_cp(str(tree), f"{container}:/workspace/tree"),
            lambda _, container, back: docker_cp(f"{container}:/workspace/tree", str(back)),
        ),
    ]


def container_of(task: Task) -> str | None:
    """The id of its container, whose name may change at this moment."""
    command = ["docker", "inspect", "--format", "{{.Id}}", task.status()["sandboxes"][0]["container"]]
    found = subprocess.run(command, check=False, capture_output=True, text=True)
    return found.stdout.strip() or None


def make_tree(tree: Path, files: int) -> None:
    for number in range(files):
        if not number % FOLDER_FILES:
            folder = tree / f"folder {number // FOLDER_FILES}"
            folder.mkdir(parents=True)
        (folder / f"file {number}").write_bytes(b"%d\n" % number)


def move_trees(folder: Path, tree: Path, files: int, rounds: int) -> tuple[list[Way], float, int]:
    """Copy a tree in and out, by each way in turn, each time of a task of its own; the first one is forked, too.

    Returns also the seconds of the fork, and the bytes of memory that the client and the server took at the most.
    """
    forked, most = 0.0, 0
    deployment, back, measured = f"bench-trees-{os.getpid()}", tree.with_name("back"), ways()
    with serving(folder, config(deployment, 300 + files * 5 // 1000)) as served, blocking.connect(served.url) as cell:
        for number in range(rounds):
            for way in measured:
                task = cell.open(f"trees {number} {way.name}")
                task.run("true").check()
                container = until(partial(container_of, task))
                way.into.append(_timed(partial(way.put, task, container, tree)))
                way.out.append(_timed(partial(way.get, task, container, back)))
                found = sum(len(names) for _, _, names in os.walk(back))
                if found != files:
                    raise SystemExit(f"{way.name}: {found} files came back instead of {files}.")
                shutil.rmtree(back)
                if not forked:
                    most = max(served.resident(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10)
                    began = time.monotonic()
                    copy = task.fork("copy")
                    forked = time.monotonic() - began
                    if copy.run("find tree -type f | wc -l").check().stdout != b"%d\n" % files:
                        raise SystemExit("The fork of a tree is not whole.")
                    copy.close()
                task.close()
    return measured, forked, most


def _timed(call: Callable[[], None]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


def rows(measured: list[Way]) -> list[str]:
    peer = measured[-1]

    def cell(own: list[float], of_peer: list[float]) -> str:
        return f"{statistics.median(own):.1f} s | {statistics.median(own) / statistics.median(of_peer):.2f} times"

    return [f"| {way.name} | {cell(way.into, peer.into)} | {cell(way.out, peer.out)} |" for way in measured]


def measure(folder: Path, megabytes: int, count: int, small: int) -> str:
    forks, tree = Forks(), folder / "tree"
    fork_one(forks, folder / "one", megabytes)
    fork_many(forks, folder / "many", count)
    make_tree(tree, small)
    measured, forked, most = move_trees(folder / "trees", tree, small, ROUNDS if small <= 20_000 else 1)
    lines = [
        HEADING,
        "",
        f"`make bench-forks` writes this section. Medians of {ROUNDS} rounds.",
        "",
        f"- A fork of a task with {megabytes} MB, a sandbox being ready: {statistics.median(forks.one):.2f} s "
        f"({min(forks.one):.2f} to {max(forks.one):.2f});",
        f"  `cp` of the same bytes in the task takes {statistics.median(forks.copy):.2f} s.",
        f"- {count} forks of one task at once, each with a command in it: {forks.many:.1f} s;",
        f"  the server's memory grows by {forks.grown >> 20} MiB at the most.",
        "",
        f"A tree of {small} small files, in and out; ratios to `docker cp`, which runs as root, on the host:",
        "",
        "| way | in | ratio | out | ratio |",
        "| --- | --- | --- | --- | --- |",
        *rows(measured),
        "",
        f"- A fork of the task with that tree: {forked:.1f} s.",
        f"- The client, and the server, had {most >> 20} MiB of memory at the most.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", type=Path, help="write the section into this page as well")
    parser.add_argument("--megabytes", type=int, default=200, help="size of the workspace that is forked")
    parser.add_argument("--forks", type=int, default=50, help="forks at once")
    parser.add_argument("--small", type=int, default=100_000, help="files of the tree")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        section = measure(Path(folder), options.megabytes, options.forks, options.small)
    print(section)
    if options.write:
        write_section(options.write, HEADING, section)


if __name__ == "__main__":
    main()
