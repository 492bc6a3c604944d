"""A supervisor that somebody took its limits from never says 0 for what it cannot see."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor_driver import Client, Supervisor, alive, until
from taskcell.supervisor import events, requests
from taskcell.supervisor.protocol import FailedStage, Reason

LIMITS = {"nofile": (0, 0), "as": (1, 1), "data": (0, 0), "nproc": (1, 1), "fsize": (0, 0), "core": (0, 0)}
#: As PID 1 of a container, which may not raise a limit that was lowered: 24 is CAP_SYS_RESOURCE, 24 PR_CAPBSET_DROP.
UNPRIVILEGED = "import ctypes, os, sys; ctypes.CDLL(None).prctl(24, 24, 0, 0, 0); os.execv(sys.argv[1], sys.argv[1:])"
#: Detaches a process, and stays itself.
DETACHING = "setsid sleep 300 & echo $$ $!; echo up; wait"


@pytest.fixture
def supervisor(binary: Path, tmp_path: Path) -> Iterator[Supervisor]:
    running = Supervisor(binary, tmp_path / "run", through=[sys.executable, "-c", UNPRIVILEGED])
    yield running
    running.stop()


@pytest.fixture(params=LIMITS)
def name(request: pytest.FixtureRequest, binary: Path) -> str:
    """A limit that is lowered."""
    if request.param in ("as", "data") and b"__asan_init" in binary.read_bytes():
        pytest.skip("the address sanitizer itself cannot live without memory")
    return str(request.param)


def start(client: Client, script: str, number: int = 1, **options: object) -> list[int]:
    client.shell(number, script, **options)
    return [int(word) for word in client.wait_output(number, b"up\n").split()[:-1]]


def set_limit(supervisor: Supervisor, name: str, values: tuple[int, int]) -> None:
    """As `prlimit --pid 1` of root in a sandbox."""
    resource.prlimit(supervisor.child.pid, getattr(resource, f"RLIMIT_{name.upper()}"), values)


def check_the_end(client: Client, supervisor: Supervisor, name: str, pids: list[int]) -> None:
    """It says why, is gone, and takes everything along."""
    assert (
        client.wait(events.Error).message
        == f"the limit '{name}' of the sandbox's PID 1 was lowered, which ends the sandbox"
    )
    client.wait_closed()
    supervisor.wait()
    until(lambda: not [pid for pid in pids if alive(pid)], "the end of what its leaders led")


def test_a_soft_limit_is_put_back_and_the_kill_sees_everybody(
    client: Client, supervisor: Supervisor, name: str
) -> None:
    number = getattr(resource, f"RLIMIT_{name.upper()}")
    before = resource.prlimit(supervisor.child.pid, number)
    pids = start(client, DETACHING)
    set_limit(supervisor, name, (LIMITS[name][0], before[1]))
    client.send(requests.kill(1, 0))
    assert client.wait(events.Killed, 1).survivors == 0
    assert not [pid for pid in pids if alive(pid)]
    assert resource.prlimit(supervisor.child.pid, number) == before
    client.run(2, "true")


def test_after_a_kill_it_tells_that_a_limit_is_gone_for_good(client: Client, supervisor: Supervisor, name: str) -> None:
    pids = start(client, DETACHING, timeout_ms=500)
    set_limit(supervisor, name, LIMITS[name])
    assert client.wait(events.Exit, 1).reason is Reason.TIMEOUT
    killed = client.wait(events.Killed, 1)
    if name == "nofile":
        assert killed.survivors is None
    else:
        assert (killed.survivors, [pid for pid in pids if alive(pid)]) == (0, [])
    check_the_end(client, supervisor, name, pids)


def test_the_end_of_the_command_that_lowered_it_is_still_told(
    client: Client, supervisor: Supervisor, name: str
) -> None:
    pids = start(client, "setsid sleep 300 & echo $!; echo up; read -r line; exit 3", flags=1)
    set_limit(supervisor, name, LIMITS[name])
    client.send(requests.stdin(1, b"end\n"))
    end = client.wait(events.Exit, 1)
    assert (end.exit_code, end.descendants) == (3, None if name == "nofile" else 1)
    check_the_end(client, supervisor, name, pids)


def test_a_command_after_it_is_not_started(client: Client, supervisor: Supervisor) -> None:
    set_limit(supervisor, "nproc", LIMITS["nproc"])
    client.spawn(1, "true")
    failed = client.wait(events.Failed, 1)
    assert failed.stage is FailedStage.REQUEST
    assert "nproc" in failed.message
    check_the_end(client, supervisor, "nproc", [])


def test_other_commands_are_told_of_a_kill(client: Client, supervisor: Supervisor) -> None:
    pids = start(client, DETACHING, 1)
    start(client, "echo up; read -r line", 2, flags=1)
    set_limit(supervisor, "core", LIMITS["core"])
    client.send(requests.stdin(2, b"end\n"))
    assert client.wait(events.Exit, 2).reason is Reason.ITSELF
    check_the_end(client, supervisor, "core", pids)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may list the descriptors of a process that is not dumpable")
def test_without_a_free_descriptor_a_kill_sees_everybody(client: Client, supervisor: Supervisor) -> None:
    pids = start(client, DETACHING)
    used = {int(path.name) for path in Path(f"/proc/{supervisor.child.pid}/fd").iterdir()}
    lowest_free = min(set(range(len(used) + 1)) - used)
    set_limit(supervisor, "nofile", (lowest_free, lowest_free))
    client.send(requests.kill(1, 0))
    assert client.wait(events.Killed, 1).survivors == 0
    assert not [pid for pid in pids if alive(pid)]
    check_the_end(client, supervisor, "nofile", pids)
