"""Random trees in real sandboxes, of the user and of root: a kill leaves none of them, and counts them right."""

from __future__ import annotations

import base64
import os
import random
import shutil
import subprocess
from pathlib import Path

import anyio
import docker
import pytest

from agent_task import Task
from figures import Figure
from gateways import GatewayFactory
from observe import containers, strangers
from taskcell.model import ProcessResult, Status

pytestmark = [pytest.mark.anyio, pytest.mark.engine, pytest.mark.hostile]

SOURCE = Path(__file__).parents[1] / "supervisor" / "tree.c"
#: A kill here has a grace of two seconds, which most trees use up.
KILLS = max(20, int(os.environ.get("TASKCELL_TREES") or 0) // 20)
AT_ONCE = 5
FIRST = int(os.environ.get("TASKCELL_FIRST_TREE") or 1)
#: Room for the largest trees at once.
PIDS = "[terminal]\npids = 1000\n"
SUDO = f"{PIDS}sudo = true\n[policy]\nallow_sudo = true\n"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """`tree.c` as a static program, in base64."""
    gcc = shutil.which("gcc")
    assert gcc, "gcc is needed to compile the trees; install it (apt-get install gcc libc6-dev)"
    made = tmp_path_factory.mktemp("tree") / "tree"
    subprocess.run([gcc, "-O1", "-static", "-pthread", SOURCE, "-o", made], check=True)
    return base64.b64encode(made.read_bytes()).decode()


async def end_one(task: Task, command: str, chance: random.Random) -> ProcessResult:
    """Start a tree and end it in one of the ways that a caller has: `process`, or a time-out."""
    if chance.random() < 0.5:
        return await task.ask("kill", (await task.terminal(command, background=True)).process_id)
    result = await task.terminal(command, timeout=0.1 + chance.random() * 0.3)
    # The main process may have ended by itself, and left the others.
    return result if result.status is Status.TIMED_OUT else await task.ask("kill", result.process_id)


@pytest.mark.parametrize("root", [False, True], ids=["user", "root by sudo"])
async def test_a_kill_leaves_nothing_of_a_random_tree_in_a_sandbox_and_counts_it_right(
    gateway: GatewayFactory, docker_api: docker.APIClient, program: str, figure: Figure, root: bool
) -> None:
    name, prefix = f"trees-{root}".lower(), "sudo " if root else ""
    async with gateway(f'deployment = "{name}"\n{SUDO if root else PIDS}') as gw:
        task = Task(gw)
        unpack = "base64 -d >/tmp/tree && chmod 755 /tmp/tree"
        assert (await task.terminal(unpack, stdin=program)).exit_code == 0
        (container,) = containers(docker_api, taskcell__deployment=name)
        pids = os.readlink(f"/proc/{docker_api.inspect_container(container)['State']['Pid']}/ns/pid")
        for first in range(FIRST, FIRST + KILLS, AT_ONCE):
            ended: list[ProcessResult] = []

            async def one(seed: int, ended: list[ProcessResult] = ended) -> None:
                ended.append(await end_one(task, f"exec {prefix}/tmp/tree {seed}", random.Random(seed)))

            async with anyio.create_task_group() as trees:
                for seed in range(first, first + AT_ONCE):
                    trees.start_soon(one, seed)
            survivors = [result.survivors for result in ended]
            assert (survivors, strangers(pids)) == ([0] * AT_ONCE, []), f"from seed {first}"
        assert containers(docker_api, taskcell__deployment=name) == [container]
    figure(f"{'root' if root else 'user'}: {KILLS} trees, none alive")
