"""What the answers count is there at the moment in which they are given."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import anyio
import pytest

from agent_task import LIMITS, Task
from gateways import GatewayFactory
from taskcell.errors import SpawnFailed
from taskcell.model import ToolCall
from taskcell.tools.process_report import ProcessInfo

pytestmark = pytest.mark.anyio

#: Leaves three processes, whose end is in the hand of whoever makes files, and ends.
LEAVES = 'for n in 1 2 3; do setsid sh -c "until [ -e end$n ]; do sleep 0.02; done" >&- 2>&- & done; echo left; exit 5'


@pytest.fixture(params=["local", pytest.param("docker", marks=pytest.mark.engine)])
async def task(request: pytest.FixtureRequest, gateway: GatewayFactory) -> AsyncIterator[Task]:
    async with gateway(LIMITS, engine=request.param) as gw:
        yield Task(gw)


async def listed(task: Task, process_id: str) -> ProcessInfo:
    return next(info for info in (await task.process("list")).processes if info.process_id == process_id)


async def status(task: Task) -> int:
    """How many processes `sandbox status` counts."""
    report = await task.gateway.call(ToolCall("local", "sandbox", {"action": "status", "task_id": "t"}))
    return sum(info.processes for info in report.sandboxes)


async def until_alive(task: Task, process_id: str, count: int) -> None:
    with anyio.fail_after(30):
        # Each of them may have a sleep of its own for a moment.
        while (await listed(task, process_id)).alive > 2 * count:
            await anyio.sleep(0.02)


async def test_what_ends_a_moment_after_its_command_is_not_told_as_left_behind(task: Task) -> None:
    answers = [await task.terminal("sleep 0.002 & sleep 0.003 & exit 4") for _ in range(5)]
    assert {answer.exit_code for answer in answers} == {4}
    assert () in [answer.notes for answer in answers]


async def test_what_was_left_in_the_background_is_told_while_it_is_there(task: Task) -> None:
    answered = await task.terminal(LEAVES)
    assert (answered.exit_code, answered.stdout) == (5, "left\n")
    assert any("still run in the background, until `process` kills 'p1'" in note for note in answered.notes)
    assert 3 <= (await listed(task, "p1")).alive <= 6
    assert await status(task) >= 3
    await task.terminal("touch end1 end2")
    await until_alive(task, "p1", 1)
    (note,) = (await task.ask("poll", "p1")).notes
    assert note.startswith(("1 process that it started still runs", "2 processes that it started still run"))
    await task.terminal("touch end3")
    await until_alive(task, "p1", 0)
    assert (await task.ask("poll", "p1")).notes == ()
    assert ((await listed(task, "p1")).alive, await status(task)) == (0, 0)


async def test_a_kill_of_what_was_left_is_seen_in_every_count(task: Task) -> None:
    await task.terminal(LEAVES)
    killed = await task.ask("kill", "p1")
    assert (killed.status.value, killed.exit_code, killed.survivors) == ("exited", 5, 0)
    (note,) = killed.notes
    assert re.fullmatch(r"It had ended before; [3-6] processes were killed that it had left running\.", note)
    again = await task.ask("kill", "p1")
    assert again.notes == ("It had ended before, and had left nothing running.",)
    assert ((await listed(task, "p1")).alive, await status(task)) == (0, 0)


async def test_a_running_command_is_counted_with_what_it_started(task: Task) -> None:
    started = await task.terminal("sleep 60 & sleep 60 & echo up; wait", background=True)
    await task.ask("poll", started.process_id, cursor=0, wait=20)
    assert (await listed(task, started.process_id)).alive == 3
    assert "running, 3 alive" in (await task.process("list")).output()
    assert await status(task) == 3
    await task.process("kill", started.process_id)


FILL = """
import os
while True:
    try:
        child = os.fork()
    except OSError:
        os._exit(7)
    if child == 0:
        os.execlp("sleep", "sleep", "300")
"""


@pytest.mark.engine
async def test_a_command_that_meets_the_limit_on_processes_is_told_it_and_others_are_not(
    gateway: GatewayFactory,
) -> None:
    async with gateway("[terminal]\npids = 30\n") as gw:
        task = Task(gw)
        assert (await task.terminal("sleep 0 & wait")).notes == ()
        met = await task.terminal("for i in $(seq 40); do sleep 2 & done 2>/dev/null; wait", timeout=30)
        (note,) = [note for note in met.notes if "as many as it may" in note]
        assert note.startswith("While it ran, the sandbox had 30 processes and threads, as many as it may, and ")
        assert (await task.terminal("true")).notes == ()


@pytest.mark.engine
@pytest.mark.parametrize("way_out", ["kill", "reset"])
async def test_a_full_sandbox_says_who_fills_it_and_both_ways_out_and_counts_right(
    gateway: GatewayFactory, way_out: str
) -> None:
    async with gateway(LIMITS + "[terminal]\npids = 60\n", engine="docker") as gw:
        task = Task(gw)
        # As many as fit: PID 1, and this command's leader, shell and program, which go, have a place too. bash itself
        # would try again for half a minute.
        filled = await task.terminal(f"python3 -c '{FILL}' >/dev/null 2>&1", wait=30)
        assert filled.exit_code == 7
        left = (await listed(task, "p1")).alive
        assert 50 < left < 60
        assert await status(task) == left
        assert f"p1: exited {filled.exit_code}, {left} alive" in (await task.process("list")).output()
        # The places of the first command are free again: fill them too.
        while left < 58:
            try:
                await task.terminal("sleep 300", background=True)
            except SpawnFailed:
                break
            left += 2
        with pytest.raises(SpawnFailed) as full:
            await task.terminal("true")
        assert "has no room for one more process" in str(full.value)
        counted = (await listed(task, "p1")).alive
        assert f"{counted} processes of 'p1' run: kill them with `process`, process_id 'p1'" in str(full.value)
        assert "`sandbox` with the action 'reset'" in str(full.value)
        if way_out == "kill":
            assert (await task.ask("kill", "p1")).survivors == 0
            assert (await listed(task, "p1")).alive == 0
        else:
            await task.sandbox("reset")
        assert (await task.terminal("echo room")).stdout == "room\n"
