"""Trees of processes that try to escape: a kill leaves none of them, and counts them right.

The supervisor is PID 1 of a namespace, as in a container: whatever escaped would end with it.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from observe import strangers
from supervisor_driver import Client, Supervisor, until
from taskcell.supervisor import events, requests
from taskcell.supervisor.protocol import SpawnFlag

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a namespace of pids without more ado")

#: Some seconds. A failure names its seed; `make test-hostile TREES=10000` kills more, from the seed FIRST_TREE on.
KILLS = int(os.environ.get("TASKCELL_TREES") or 100)
FIRST = int(os.environ.get("TASKCELL_FIRST_TREE") or 1)
#: So many that reading them takes longer than a process of a chain lives.
BYSTANDERS = 1500


class Namespace(Supervisor):
    """A supervisor that is PID 1 of a namespace of its own."""

    def __init__(self, binary: Path, folder: Path) -> None:
        super().__init__(binary, folder, through=["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"])
        children = Path(f"/proc/{self.child.pid}/task/{self.child.pid}/children")
        until(children.read_text, "PID 1")
        self.init = int(children.read_text())
        self.name = os.readlink(f"/proc/{self.init}/ns/pid")

    def start_pids_after(self, number: int) -> None:
        """The next process gets the next number that is free."""
        command = ["nsenter", f"--pid=/proc/{self.init}/ns/pid", "sh", "-c"]
        subprocess.run([*command, f"echo {number} >/proc/sys/kernel/ns_last_pid"], check=True)

    def stop(self) -> None:
        self.child.kill()
        self.child.wait()
        assert self.log.read_text() == ""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> str:
    """`tree.c`, compiled."""
    gcc = shutil.which("gcc")
    assert gcc, "gcc is needed to compile the trees; install it (apt-get install gcc libc6-dev)"
    program = tmp_path_factory.mktemp("tree") / "tree"
    source = Path(__file__).with_name("tree.c")
    subprocess.run([gcc, "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", source, "-o", program], check=True)
    return str(program)


@pytest.fixture
def supervisor(binary: Path, tmp_path: Path) -> Iterator[Namespace]:
    program = tmp_path / "supervisor"
    shutil.copy(binary, program)
    running = Namespace(program, tmp_path / "run")
    yield running
    running.stop()


def test_a_kill_leaves_nothing_of_a_random_tree_and_counts_it_right(
    client: Client, supervisor: Namespace, tree: str
) -> None:
    for seed in range(FIRST, FIRST + KILLS):
        chance = random.Random(seed)
        client.start(seed, tree, str(seed))
        client.wait_output(seed, b"up\n")
        time.sleep(chance.random() * 0.02)
        client.send(requests.kill(seed, chance.choice([0, 0, 20])))
        killed = client.wait(events.Killed, seed)
        assert (killed.survivors, strangers(supervisor.name)) == (0, []), f"seed {seed}"
        client.wait(events.Gone, seed)
        client.events.clear()


def test_a_chain_that_forks_faster_than_a_scan_does_not_escape_when_pids_have_begun_anew(
    client: Client, supervisor: Namespace, tree: str
) -> None:
    supervisor.start_pids_after(5000)
    client.start(1, tree, "crowd", str(BYSTANDERS))
    client.wait_output(1, b"up\n")
    # Its leader has a higher number than itself, and so is read after it.
    supervisor.start_pids_after(30_000)
    client.shell(2, f"echo up; read -r line; exec {tree} chain", flags=SpawnFlag.STDIN)
    client.wait_output(2, b"up\n")
    supervisor.start_pids_after(500)
    client.send(requests.stdin(2, b"go\n"))
    client.wait_output(2, b"up\nup\n")
    client.send(requests.kill(2, 0))
    assert client.wait(events.Killed, 2).survivors == 0
    client.wait(events.Gone, 2)
