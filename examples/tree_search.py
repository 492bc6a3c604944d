"""Search for a repair over forks of a task: each step is tried in a task of its own, and the best ones go on.

    python examples/tree_search.py [--config FILE]

The program has two faults, so that no single step mends it: a task that is better than the one it was forked from is
forked again. A model would propose the steps; here they stand in a list, so that the search runs without one.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

PROGRAM = """\
def median(numbers):
    ordered = numbers
    middle = len(ordered) // 2
    return ordered[middle]
"""
TESTS = """\
from median import median

def test_odd(): assert median([1, 2, 9]) == 2
def test_unordered(): assert median([9, 1, 2]) == 2
def test_even(): assert median([1, 2, 3, 4]) == 2.5
def test_both(): assert median([4, 1, 3, 2]) == 2.5
"""
#: What a model might propose: a text of the program, and what is put in its place.
STEPS = {
    "sort": ("ordered = numbers", "ordered = sorted(numbers)"),
    "reverse": ("ordered = numbers", "ordered = list(reversed(numbers))"),
    "one less": ("len(ordered) // 2", "len(ordered) // 2 - 1"),
    "mean": ("return ordered[middle]", "return (ordered[(len(ordered) - 1) // 2] + ordered[middle]) / 2"),
}
#: Tasks that go on from one round to the next, and rounds.
WIDTH, DEPTH = 2, 3


@dataclass(frozen=True)
class Node:
    """A task of the search: the steps that led to it, and how many tests pass in it."""

    task: str
    steps: tuple[str, ...]
    passed: int

    def __str__(self) -> str:
        return " + ".join(self.steps) or "no step"


class Search:
    """Tries steps over forks, by the tools that every client has."""

    def __init__(self, client: Client) -> None:
        self._client = client
        #: Before each task's name: an earlier search may have left tasks, whose files are kept.
        self._prefix = f"search-{uuid.uuid4().hex[:8]}"
        self._open = [self._prefix]

    async def run(self) -> Node:
        """The task in which all tests pass, or the best one that was found. All tasks are closed then."""
        try:
            return await self._search(self._prefix)
        finally:
            await asyncio.gather(*map(self._close, list(self._open)))

    async def _search(self, root: str) -> Node:
        await self._call("write_file", path="median.py", content=PROGRAM, task_id=root)
        await self._call("write_file", path="test_median.py", content=TESTS, task_id=root)
        best = [Node(root, (), await self._tests(root))]
        for _ in range(DEPTH):
            tried = await asyncio.gather(
                *(self._try(node, step) for node in best for step in STEPS if step not in node.steps)
            )
            found = [node for node in tried if node is not None]
            kept = sorted([*best, *found], key=lambda node: -node.passed)[:WIDTH]
            gone = [node for node in (*best, *found) if node not in kept]
            await asyncio.gather(*(self._close(node.task) for node in gone))
            best = kept
            if best[0].passed == TESTS.count("def test_"):
                break
        return best[0]

    async def _try(self, node: Node, step: str) -> Node | None:
        """A fork of the task with one more step; None where the step does not fit."""
        task = " + ".join((self._prefix, *node.steps, step))
        await self._call("sandbox", action="fork", task_id=node.task, to=task)
        self._open.append(task)
        old, new = STEPS[step]
        if await self._call("edit_file", path="median.py", old=old, new=new, task_id=task, may_fail=True) is None:
            await self._close(task)
            return None
        found = Node(task, (*node.steps, step), await self._tests(task))
        print(f"{found}: {found.passed} tests pass")  # noqa: T201
        return found

    async def _close(self, task: str) -> None:
        self._open.remove(task)
        await self._call("sandbox", action="close", task_id=task)

    async def _tests(self, task: str) -> int:
        said = await self._call("terminal", command="python3 -m pytest -q -p no:cacheprovider", task_id=task)
        passed = re.search(r"(\d+) passed", said or "")
        return int(passed[1]) if passed else 0

    async def _call(self, tool: str, *, may_fail: bool = False, **arguments: Any) -> str | None:
        answer = await self._client.call_tool(tool, arguments)
        text = "\n".join(getattr(block, "text", "") for block in answer.content)
        if answer.is_error and not may_fail:
            raise SystemExit(f"{tool}: {text}")
        return None if answer.is_error else text


async def search(arguments: list[str]) -> Node:
    """Start a server, and search."""
    words = ["-m", "taskcell", "serve", *arguments]
    server = StdioServerParameters(command=sys.executable, args=words, env=dict(os.environ))
    async with Client(stdio_client(server)) as client:
        return await Search(client).run()


def main() -> int:
    parser = argparse.ArgumentParser(description="Search for a repair over forks of a task.")
    parser.add_argument("--config", type=Path, help="the server's configuration")
    config = parser.parse_args().config
    found = asyncio.run(search([] if config is None else ["--config", str(config)]))
    print(f"best: {found}, {found.passed} of {TESTS.count('def test_')} tests pass")  # noqa: T201
    return 0 if found.passed == TESTS.count("def test_") else 1


if __name__ == "__main__":
    sys.exit(main())
