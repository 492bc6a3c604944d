"""The blocking client beside what programs do with threads, forks and their own end, on the local engine."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio.to_thread
import pytest

from client_serving import LOCAL_ENGINE, served
from gateways import GatewayFactory
from observe import alive, eventually, marker
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

#: ^C reaches the whole group of a terminal, and so a server of the program's own too, unless that is apart.
INTERRUPTED = """\
import os, signal, sys
from taskcell.client.blocking import connect

def interrupt(*_):
    os.killpg(0, signal.SIGINT)

def pieces():
    yield b"begun"
    interrupt()

with connect(config=sys.argv[1]) as cell:
    task = cell.open("t")
    try:
        task.run(f"cat; sleep {sys.argv[2]}", stdin=pieces())
    except KeyboardInterrupt:
        print("run", flush=True)
    sys.stdin.readline()
    print(task.run("echo on").stdout.decode(), end="", flush=True)
    with task.shell() as shell:
        shell.run("x=kept")
        try:
            shell.run(f"bash -c 'echo begun; exec sleep {sys.argv[2]}'", on_output=interrupt)
        except KeyboardInterrupt:
            print("shell", flush=True)
        print(shell.run("echo $x").stdout.decode(), end="", flush=True)
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


def test_an_interrupted_call_is_given_up_and_the_connection_goes_on(tmp_path: Path) -> None:
    mark = marker()
    config = tmp_path / "taskcell.toml"
    config.write_text(LOCAL_ENGINE)
    words = [sys.executable, "-c", INTERRUPTED, str(config), mark]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(words, **pipes, start_new_session=True) as program:  # type: ignore[call-overload]
        try:
            assert program.stdout.readline() == "run\n"
            assert eventually(lambda: not alive(mark))
            heard, _ = program.communicate("\n", timeout=PATIENCE)
        finally:
            program.kill()
    assert heard.splitlines() == ["on", "shell", "kept"]
    assert program.returncode == 0


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
