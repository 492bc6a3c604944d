"""A real MCP client against a real `taskcell serve` in a process of its own."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from mcp import StdioServerParameters
from mcp.client.client import Client
from mcp.client.extension import ClientExtension
from mcp.client.stdio import stdio_client


@asynccontextmanager
async def serving(
    folder: Path,
    toml: str,
    mode: str = "auto",
    env: dict[str, str] | None = None,
    extensions: Sequence[ClientExtension] = (),
    *,
    program: Sequence[str] = ("-m", "taskcell"),
) -> AsyncIterator[tuple[Client, int]]:
    """`async with serving(tmp_path, toml) as (client, pid)`: `pid` is the server's, `mode` the protocol's era.

    `program`: Python's arguments that make it taskcell.
    """
    config = folder / "taskcell.toml"
    config.write_text(toml, encoding="utf-8")
    before = _children()
    arguments = [*program, "serve", "--config", str(config)]
    # Servers of tests know nothing of this machine's others, and leave nothing unless a test is about that.
    ends = {} if "on_exit" in toml else {"TASKCELL__POOL__ON_EXIT": "close"}
    own = {"XDG_STATE_HOME": str(folder / "state"), **ends, **(env or {})}
    server = StdioServerParameters(command=sys.executable, args=arguments, env=own, cwd=folder)
    with (folder / "serve.log").open("a") as log:
        async with Client(stdio_client(server, errlog=log), mode=mode, extensions=extensions) as client:
            (pid,) = _children() - before
            yield client, pid


def _children() -> set[int]:
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError):  # a thread that has ended meanwhile
            found.update(map(int, (task / "children").read_text().split()))
    return found


def peak_memory(pid: int) -> int:
    """The most bytes of memory that a process has held so far (VmHWM)."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
