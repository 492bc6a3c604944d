"""A wall clock that jumps, as one does that is set: nothing expires, and no time-out changes its length."""

from __future__ import annotations

import time
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from agent_task import Task
from client_serving import served
from gateways import GatewayFactory
from observe import eventually
from taskcell.deployment.archives import ArchiveHead
from taskcell.deployment.kept import KeptFiles
from taskcell.deployment.opened import OpenedTasks, Opening, read_opened
from taskcell.deployment.state_folder import StateFolder
from taskcell.model import ProcessResult, TaskKey
from taskcell.sandbox import sandbox
from taskcell.tools.process_report import ProcessInfo

pytestmark = pytest.mark.anyio

DAY = 86400.0
REAL = time.time
#: Seconds for what takes a moment, on a busy machine.
PATIENCE = 60.0
TOML = 'manifests = []\n[engine]\nkind = "local"\n[limits]\nmax_timeout = "1h"\n'


async def running(task: Task) -> list[ProcessInfo]:
    listed = (await task.process("list")).processes
    return [one for one in listed if one.status == "running"]


def jump(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """The wall clock shows so much more from now on; the monotonic one goes on as it did."""
    monkeypatch.setattr(time, "time", lambda: REAL() + seconds)


@pytest.mark.parametrize("seconds", [DAY, -DAY])
async def test_a_command_that_outlives_its_call_keeps_its_time_out_and_its_age(
    gateway: GatewayFactory, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(sandbox, "DEADLINE_SLACK", 0.0)
    async with gateway(TOML, engine="local") as gw:
        task = Task(gw)
        await task.terminal("mkfifo go")
        answers: list[ProcessResult] = []

        async def call() -> None:
            answers.append(await task.terminal("cat go", wait=0.3, timeout=1800))

        async with anyio.create_task_group() as calls:
            calls.start_soon(call)
            while not (await running(task)):
                await anyio.sleep(0.01)
            jump(monkeypatch, seconds)
        (begun,) = answers
        assert begun.status.value == "running"
        (listed,) = await running(task)
        assert 0 <= listed.age_s < PATIENCE
        await task.terminal("echo on > go")
        ended = await task.ask("wait", begun.process_id, wait=PATIENCE)
        assert (ended.status.value, ended.stdout) == ("exited", "on\n")


def names(state: Path) -> set[str]:
    return {task.task for task in read_opened(state)}


async def test_a_clock_that_is_set_ends_no_lifetime(
    gateway: GatewayFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state"
    async with served(gateway, state) as cell:
        await cell.open("kept", lifetime=3600)
        await cell.task("kept").write_bytes("file", b"x")
        jump(monkeypatch, DAY)
        await cell.open("over", lifetime=0.2)
        assert await anyio.to_thread.run_sync(lambda: eventually(lambda: names(state) == {"kept"}))
        assert await cell.task("kept").read_bytes("file") == b"x"
        (left,) = await cell.tasks()
        assert left.ends_in is not None
        assert 3000 < left.ends_in <= 3600


@pytest.mark.parametrize("seconds", [30 * DAY, -30 * DAY])
def test_a_clock_that_is_set_deletes_no_kept_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    deployment = StateFolder(tmp_path / "state")
    deployment.join("a" * 16)
    files = KeptFiles(deployment, 7 * DAY, 1 << 30)
    draft, file = files.draft(ArchiveHead("ann", "one", REAL()))
    with file:
        file.write(b"content")
    files.keep(draft, TaskKey("ann", "one"))
    jump(monkeypatch, seconds)
    files.prune()
    assert files.tasks() == [TaskKey("ann", "one")]


def test_a_clock_that_is_set_forgets_nothing_that_a_task_was_opened_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = StateFolder(tmp_path / "state")
    deployment.join("a" * 16)
    opened = OpenedTasks(deployment, {}, is_persistent=False)
    opened.note(TaskKey("ann", "one"), Opening(labels={"a": "b"}))
    jump(monkeypatch, 365 * DAY)
    opened.note(TaskKey("ann", "two"), Opening(labels={"a": "c"}))
    assert opened.find(TaskKey("ann", "one")).labels == {"a": "b"}
