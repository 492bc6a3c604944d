"""System V shared memory that nobody holds goes with the last command, and nothing else does."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from supervisor_driver import Client, Supervisor
from taskcell.supervisor import events, requests

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes namespaces without more ado")

Started = Callable[..., AbstractContextManager[Client]]
#: Makes a segment and holds it.
HOLD = """
import ctypes, time
libc = ctypes.CDLL(None)
libc.shmat.restype = ctypes.c_void_p
libc.shmat(libc.shmget(0, 1 << 20, 0o1600), None, 0)
print("made", flush=True)
time.sleep(300)
"""
MAKE = ("ipcmk", "--shmem", "1048576", "--mode", "0600")


@pytest.fixture
def started(binary: Path, tmp_path: Path) -> Started:
    """A supervisor that is PID 1, and alone in its IPC namespace."""

    @contextmanager
    def start(*options: str) -> Iterator[Client]:
        program = tmp_path / "supervisor"
        shutil.copy(binary, program)
        through = ["unshare", "--pid", "--ipc", "--fork", "--kill-child", "--mount-proc"]
        running = Supervisor(program, tmp_path / "run", through=through, options=options)
        try:
            with running.claim() as client:
                yield client
        finally:
            # The namespace's own PID 1 first: it outlives the program that has made the namespace.
            unshare = running.child.pid
            os.kill(unshare, signal.SIGSTOP)  # it would say something of its child's end
            for child in Path(f"/proc/{unshare}/task/{unshare}/children").read_text().split():
                os.kill(int(child), signal.SIGKILL)
            running.child.kill()
            running.child.wait()
        assert running.log.read_text() == ""

    return start


def run(client: Client, number: int, *argv: str, user: bytes = b"") -> events.Exit:
    """Run a command until nothing of it is left."""
    ended = client.run(number, *argv, user=user)
    client.wait(events.Gone, number)
    return ended


def count(client: Client, number: int) -> int:
    run(client, number, "cat", "/proc/sysvipc/shm")
    return client.output(number).count(b"\n") - 1


@pytest.mark.parametrize("user", [b"", b"1000:1000", b"1001:1001"])
def test_what_a_command_made_and_nobody_holds_is_gone_when_its_end_is_told(started: Started, user: bytes) -> None:
    with started("--own-ipc") as client:
        assert client.run(1, *MAKE, user=user).exit_code == 0
        assert count(client, 2) == 0
        # It was the owner for a moment, and may do all again that it must.
        assert run(client, 3, "sh", "-c", "exit $(id -u)", user=b"7:7").exit_code == 7
        client.shell(4, "echo up; exec sleep 300", user=b"1002:1002")
        client.wait_output(4, b"up\n")
        client.send(requests.kill(4, 0))
        assert client.wait(events.Killed, 4).survivors == 0


def test_all_of_it_stays_while_anything_runs(started: Started) -> None:
    with started("--own-ipc") as client:
        client.start(1, sys.executable, "-c", HOLD)
        client.wait_output(1, b"made\n")
        run(client, 2, *MAKE, user=b"1000:1000")
        assert count(client, 3) == 2
        client.run(4, "sh", "-c", "sleep 300 >/dev/null 2>&1 &")
        client.send(requests.kill(1, 0))
        client.wait(events.Gone, 1)
        assert count(client, 5) == 2
        client.send(requests.kill(4, 0))
        client.wait(events.Gone, 4)
        assert count(client, 6) == 0


def test_where_the_namespace_is_not_the_sandboxs_own_nothing_is_removed(started: Started) -> None:
    with started() as client:
        run(client, 1, *MAKE)
        assert count(client, 2) == 1


@pytest.mark.parametrize("options", [["--own"], ["--claim"], ["--own-ipc", "x"]])
def test_an_unknown_option_is_bad_usage(binary: Path, tmp_path: Path, options: list[str]) -> None:
    done = subprocess.run([binary, "init", "--socket", tmp_path / "s", *options], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"usage: supervisor init --socket PATH [--claim MS] [--own-ipc]")
