"""Copies of tasks' files on a real engine: every file, of one moment, and nothing left of what was needed for it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import anyio
import docker
import pytest

from agent_task import Task
from gateways import GatewayFactory
from taskcell.engine.docker.copying import outcomes
from taskcell.errors import EngineError, TaskcellError
from taskcell.model import ToolCall
from taskcell.tools.sandbox import SandboxReport

pytestmark = pytest.mark.anyio

DEPLOYMENT = "copied-files-test"
TOML = f'deployment = "{DEPLOYMENT}"\nmanifests = []\n'
#: Seconds for what takes one, on a machine that is busy.
PATIENCE = 120.0
#: What is easily lost: several names of one file, holes, modes, times, attributes, a pipe, names that are not text.
MAKE = (
    "mkdir -p d/e && for i in $(seq 500); do echo $i$RANDOM > d/e/f$i; done; ln -s d link; ln -s nowhere broken; "
    "ln d/e/f1 hard; mkfifo -m 640 pipe; chmod 750 d; chmod 0 d/e/f2; chmod 4755 d/e/f3; touch -d 2001-02-03 d/e/f4; "
    "touch -d 2002-03-04 d/e; printf x > $'new\\nline'; printf y > $'\\xff\\xfe'; : > empty; mkdir -m 500 sealed; "
    "truncate -s 600M hole; echo end >> hole; head -c 30M /dev/urandom > large; "
    'python3 -c \'import os; os.setxattr("large", "user.note", b"kept")\' 2> /dev/null; '
    "p=deep; for i in $(seq 120); do p=$p/d; done; mkdir -p $p; cd d; export KEPT=one\\ two"
)
SUM = (
    "(cd /workspace && { find . -printf '%P %y %m %U %G %n %l\\n' -type f -printf '%P %s %b %T@\\n'; "
    "find . -type f -readable -exec sha256sum {} +; "
    "python3 -c 'import os; print(os.listxattr(\"large\"))'; } | LC_ALL=C sort | sha256sum; find . | wc -l)"
)


async def copied(gw: object, action: str, task: str = "one", **names: str) -> tuple[str, ...]:
    arguments = {"action": action, "task_id": task, **names}
    report = await gw.call(ToolCall("local", "sandbox", arguments))  # type: ignore[attr-defined]
    assert isinstance(report, SandboxReport)
    return report.notes


async def eventually(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(PATIENCE):
        while not condition():
            await anyio.sleep(0.05)


def copiers(api: docker.APIClient) -> list[str]:
    return [found["Id"] for found in api.containers(all=True, filters={"label": "taskcell.kind=copier"})]


@pytest.mark.engine
@pytest.mark.parametrize("warm", [0, 1])
async def test_every_file_of_a_fork_is_the_same(
    gateway: GatewayFactory, docker_api: docker.APIClient, tmp_path: Path, warm: int
) -> None:
    async with gateway(TOML, warm=warm) as gw:
        one, two = Task(gw, task="one"), Task(gw, task="two")
        await one.terminal(MAKE)
        before = (await one.terminal(SUM)).stdout
        assert await copied(gw, "fork", to="two") == ("The task 'two' has the same files, folder and variables.",)
        result = await two.terminal(f"pwd; echo $KEPT; {SUM}")
        assert result.stdout == f"/workspace/d\none two\n{before}"
        # A file's several names stay one file, and what the two write stays apart.
        assert (await two.terminal("cd /workspace; echo more >> hard; tail -1 d/e/f1")).stdout == "more\n"
        assert (await one.terminal(SUM)).stdout == before
        await eventually(lambda: not copiers(docker_api))


@pytest.mark.engine
async def test_what_runs_in_a_task_stands_still_while_it_is_copied_and_goes_on(
    gateway: GatewayFactory, tmp_path: Path
) -> None:
    """A counter that is written twice, in two files, is the same in both: nothing ran between the two reads."""
    count = "i=0; while :; do i=$((i+1)); echo $i > a.new; mv a.new a; echo $i > b.new; mv b.new b; done"
    async with gateway(TOML, state=tmp_path / "state") as gw:
        one = Task(gw, task="one")
        started = await one.terminal(count, background=True)
        await one.terminal("until [ -e b ]; do sleep 0.1; done; head -c 60M /dev/urandom > large")
        for number in range(3):
            assert len(await copied(gw, "fork", to=f"fork {number}")) == 1
            await copied(gw, "snapshot", name="s")
            await copied(gw, "restore", task=f"restored {number}", name="s")
            for task in (f"fork {number}", f"restored {number}"):
                a, b = map(int, (await Task(gw, task=task).terminal("cat a b")).stdout.split())
                assert a - b in {0, 1}
                await copied(gw, "close", task=task)
        before = int((await one.terminal("cat a")).stdout)
        await one.terminal(f"until [ $(cat a) -gt {before} ]; do sleep 0.1; done")
        assert (await one.ask("poll", started.process_id)).status.value == "running"


@pytest.mark.engine
async def test_files_of_another_user_are_copied_with_their_owner(gateway: GatewayFactory) -> None:
    sudo = "[terminal]\nsudo = true\n[policy]\nallow_sudo = true\n"
    async with gateway(TOML + sudo) as gw:
        await Task(gw, task="one").terminal("echo secret > f; sudo chown root:root f; sudo chmod 600 f")
        await copied(gw, "fork", to="two")
        look = "stat -c '%U %G %a' f; cat f; sudo cat f"
        assert (await Task(gw, task="two").terminal(look)).stdout.splitlines()[0::2] == ["root root 600", "secret"]


@pytest.mark.engine
async def test_a_fork_whose_sandbox_dies_meanwhile_leaves_no_task(
    gateway: GatewayFactory, docker_api: docker.APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from taskcell.engine.docker import copying

    copy = copying.copy

    def after_its_end(on: object, source: object, targets: list[object], runtime: str) -> list[str]:
        for target in targets:
            docker_api.remove_container(target.id, force=True, v=True)  # type: ignore[attr-defined]
        return copy(on, source, targets, runtime)  # type: ignore[arg-type]

    async with gateway(TOML) as gw:
        one = Task(gw, task="one")
        await one.terminal("echo 1 > f")
        with monkeypatch.context() as patch:
            patch.setattr(copying, "copy", after_its_end)
            with suppress(TaskcellError):  # where the copy was whole before the loss was noticed
                await copied(gw, "fork", to="two")
        # Of a task whose only sandbox has died before its files were kept, nothing is left, and never a half.
        assert (await Task(gw, task="two").terminal("ls")).stdout == ""
        assert (await one.terminal("cat f")).stdout == "1\n"


# --- what the copying program says


def test_each_folder_has_the_first_word_that_is_said_of_it() -> None:
    said = [b"0 o", b"k\n1 f: No space left on device\n1 g: No space", b" left on device\n2 ok\n"]
    assert outcomes(said, 3) == ["", "f: No space left on device", ""]


@pytest.mark.parametrize("said", [[], [b"0 ok\n"], [b"exec format error"], [b"7 ok\n", b"\xff\n", b"1\n"]])
def test_a_program_that_ends_too_early_is_an_error(said: list[bytes]) -> None:
    with pytest.raises(EngineError, match="ended too early"):
        outcomes(said, 2)
