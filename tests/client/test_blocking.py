"""The blocking client beside what programs do with threads, forks and their own end, on the local engine."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio.to_thread
import pytest

from client_serving import served
from gateways import GatewayFactory
from taskcell.client import connect
from taskcell.client.blocking import connect as connect_blocking
from taskcell.client.failures import LostError
from taskcell.deployment.doors import open_doors

pytestmark = pytest.mark.anyio

#: Seconds for a program with a few calls, on a busy machine; a hang is for ever.
PATIENCE = 110
PROGRAM = """\
import os, sys
from taskcell.client.blocking import connect
from taskcell.client.failures import LostError

opened = connect(door=sys.argv[1])
cell = opened.__enter__()
task = cell.open("t")
entered = task.shell()
shell = entered.__enter__()
child = os.fork()
if not child:
    try:
        task.run("true")
    except LostError as error:
        print(error, flush=True)
    sys.exit()
os.waitpid(child, 0)
print(shell.run("echo in the shell").stdout.decode(), end="", flush=True)
"""


async def test_a_program_that_leaves_everything_open_ends_and_a_forked_one_is_told(
    gateway: GatewayFactory, tmp_path: Path
) -> None:
    async with served(gateway, tmp_path / "state"):
        (door,) = open_doors(tmp_path / "state")
        words = [sys.executable, "-c", PROGRAM, str(door)]
        done = await anyio.to_thread.run_sync(
            lambda: subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=False)
        )
    assert (done.returncode, done.stderr) == (0, "")
    told, heard = done.stdout.splitlines()
    assert "another process" in told
    assert heard == "in the shell"


async def test_threads_share_a_connection_and_what_is_left_open_ends_with_it(
    gateway: GatewayFactory, tmp_path: Path
) -> None:
    async with served(gateway, tmp_path / "state"):
        (door,) = open_doors(tmp_path / "state")

        def use() -> None:
            with connect_blocking(door=door) as cell:
                task = cell.open("t")
                with ThreadPoolExecutor(8) as threads:
                    found = list(threads.map(lambda number: task.run(["echo", str(number)]).stdout, range(32)))
                assert found == [b"%d\n" % number for number in range(32)]
                left = task.shell("left"), task.start("sleep 1000")
                for one in left:
                    one.__enter__()
            with pytest.raises(LostError, match="was closed"):
                task.run("true")
            for one in left:
                one.__exit__(None, None, None)

        await anyio.to_thread.run_sync(use)


async def test_a_connection_that_was_closed_says_so(gateway: GatewayFactory, tmp_path: Path) -> None:
    async with served(gateway, tmp_path / "state"):
        (door,) = open_doors(tmp_path / "state")
        async with connect(door=door) as cell:
            task = await cell.open("t")
        with pytest.raises(LostError, match="was closed"):
            await task.run("true")
        with pytest.raises(LostError, match="was closed"):
            await cell.tasks()
