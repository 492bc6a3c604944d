"""A server over HTTP, and clients that come by HTTP and by a server's local door."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx2
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client

from taskcell.deployment.state_folder import DOOR

#: What is waited for.
Found = TypeVar("Found")
#: Seconds for a server to listen, to answer and to end, on a busy machine.
PATIENCE = 120.0


@dataclass(frozen=True, slots=True)
class Served:
    """A server over HTTP that is running."""

    port: int
    pid: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def resident(self) -> int:
        """Bytes of memory that it holds now."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def until(look: Callable[[], Found | None]) -> Found:
    """Wait for something."""
    end = time.monotonic() + PATIENCE
    while (found := look()) is None:
        if time.monotonic() > end:
            raise SystemExit("A server did not start in time.")
        time.sleep(0.05)
    return found


@contextmanager
def serving(folder: Path, toml: str) -> Iterator[Served]:
    """A server of this configuration, with a deployment of its own."""
    folder.mkdir()
    (folder / "taskcell.toml").write_text(toml, encoding="utf-8")
    command = [sys.executable, "-m", "taskcell", "serve", "--http", "127.0.0.1:0", "--config", "taskcell.toml"]
    log = folder / "log"
    state = {**os.environ, "XDG_STATE_HOME": str(folder / "state")}
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=folder, env=state, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        found = until(lambda: re.search(r"Serving MCP at http://127\.0\.0\.1:(\d+)", log.read_text()))
        yield Served(int(found[1]), process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)


def door_of(state: Path) -> Path:
    """The local door of the only server that keeps its state here, and has served a call."""
    return until(lambda: next(state.rglob(f"*{DOOR}"), None))


@asynccontextmanager
async def client_of(url: str, door: Path | None = None) -> AsyncIterator[Client]:
    """The SDK's own client.

    Arguments:
        door: connect to this socket instead of the address.
    """
    transport = None if door is None else httpx2.AsyncHTTPTransport(uds=str(door), verify=False)
    async with (
        httpx2.AsyncClient(transport=transport, timeout=PATIENCE, trust_env=False) as http,
        Client(streamable_http_client(f"{url}/mcp", http_client=http), mode="2026-07-28") as client,
    ):
        yield client
