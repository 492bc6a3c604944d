"""A task's 10,000 files are the same after every end of its sandbox, and are there again in seconds."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import docker
import pytest

from agent_task import Task
from gateways import GatewayFactory
from observe import containers
from observe import eventually as becomes_true
from second_engine import SecondEngine
from taskcell.gateway.gateway import Gateway

pytestmark = [pytest.mark.anyio, pytest.mark.engine, pytest.mark.faults]

FILES = 10_000
MAKE = f"mkdir -p d/e && cd d && for i in $(seq {FILES}); do echo $i$RANDOM > e/f$i; done; export KEPT=yes"
SUM = "(cd /workspace && find . -type f -exec sha256sum {} + | LC_ALL=C sort | sha256sum; find . -type f | wc -l)"
#: Seconds for anything that takes some, on a machine that is busy; and for the files to be there again.
PATIENCE, AGAIN = 120.0, 60.0
DEPLOYMENT = "ten-thousand"
TOML = f'deployment = "{DEPLOYMENT}"\nmanifests = []\n[pool]\nmax_sandboxes = 1\n'


@pytest.fixture(scope="module")
def engine() -> Iterator[SecondEngine]:
    made = SecondEngine()
    try:
        made.start()
        save = subprocess.Popen(["docker", "save", "taskcell/base:latest"], stdout=subprocess.PIPE)
        subprocess.run(["docker", "-H", made.host, "load"], stdin=save.stdout, check=True, capture_output=True)
        assert save.wait() == 0
        yield made
    finally:
        made.remove()


async def until(holds: Callable[[], bool]) -> None:
    assert await anyio.to_thread.run_sync(becomes_true, holds, PATIENCE)


async def saved(state: Path, since: float) -> None:
    """Until the task's archive is newer than its last command."""
    await until(lambda: any(path.stat().st_mtime > since for path in (state / "kept").glob("*.kept")))


async def begun(gw: Gateway, state: Path) -> str:
    """A task with its files; returns what names them all."""
    task = Task(gw)
    assert (await task.terminal(MAKE, wait=None, timeout=PATIENCE)).exit_code == 0
    before = (await task.terminal(SUM, timeout=PATIENCE)).stdout
    assert before.split()[-1] == str(FILES)
    await saved(state, time.time())
    return before


async def is_the_same(gw: Gateway, before: str, end: str) -> None:
    began = time.monotonic()
    with anyio.fail_after(AGAIN):
        found = await Task(gw).terminal(f'{SUM}; pwd; echo "$KEPT"', timeout=AGAIN)
    print(f"{end}: {FILES:,} files are the same {time.monotonic() - began:.1f} s after the call")
    assert found.stdout == f"{before}/workspace/d\nyes\n"
    assert "its files" in " ".join(found.notes)


async def test_after_idle_time_room_for_another_a_kill_and_a_restart_of_the_engine(
    gateway: GatewayFactory, engine: SecondEngine, tmp_path: Path
) -> None:
    state, api = tmp_path / "state", docker.APIClient(engine.host, version="auto")

    def own() -> list[str]:
        return containers(api, taskcell__deployment=DEPLOYMENT)

    async with gateway(TOML, host=engine.host, state=state) as gw:
        before = await begun(gw, state)
        await Task(gw, task="other").terminal("true")
        await is_the_same(gw, before, "evicted")

        await saved(state, time.time())
        for container in own():
            api.kill(container)
        await until(lambda: not own())
        await is_the_same(gw, before, "killed")

        await saved(state, time.time())
        await anyio.to_thread.run_sync(engine.stop)
        await anyio.to_thread.run_sync(engine.start)
        await is_the_same(gw, before, "engine restarted")
    async with gateway(f'{TOML}idle_ttl = "4s"\n', host=engine.host, state=state) as gw:
        await is_the_same(gw, before, "server restarted")
        await until(lambda: not own())
        await is_the_same(gw, before, "idle")
    api.close()
