"""Calls about a process that has ended, that was never there, or that ends while they run: one clear answer each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from agent_task import LIMITS, Task
from gateways import GatewayFactory
from taskcell.errors import BadArgument, SandboxLost, TaskcellError, UnknownProcess
from taskcell.model import ProcessResult

pytestmark = pytest.mark.anyio

#: Each action that changes something in a process.
ACTIONS: list[tuple[str, dict[str, Any]]] = [
    ("signal", {"signal": "TERM"}),
    ("write", {"data": "x\n"}),
    ("resize", {"rows": 10, "cols": 20}),
    ("close_stdin", {}),
]


async def at_once(*calls: Callable[[], Awaitable[Any]]) -> list[Any]:
    """What each of the calls returned or raised, all at once."""
    found: list[Any] = [None] * len(calls)

    async def run(index: int, call: Callable[[], Awaitable[Any]]) -> None:
        try:
            found[index] = await call()
        except TaskcellError as error:
            found[index] = error

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            for index, call in enumerate(calls):
                group.start_soon(run, index, call)
    return found


@pytest.mark.parametrize(("action", "arguments"), ACTIONS)
async def test_nothing_can_be_done_to_a_process_that_has_ended(task: Task, action: str, arguments: dict) -> None:
    ended = await task.terminal("echo over", pty=True)
    with pytest.raises(BadArgument) as refused:
        await task.process(action, ended.process_id, **arguments)
    assert str(refused.value) == "The process 'p1' has ended; poll it for its output."
    assert (await task.ask("kill", ended.process_id)).exit_code == 0


@pytest.mark.parametrize(("action", "arguments"), [*ACTIONS, ("poll", {}), ("wait", {"until": "x"}), ("kill", {})])
async def test_another_tasks_process_is_unknown(task: Task, action: str, arguments: dict) -> None:
    other = Task(task.gateway, task="other")
    for _ in range(3):
        await other.terminal("true")
    await task.terminal("true")
    with pytest.raises(UnknownProcess, match="This task has no process 'p3'; the action 'list' shows its processes"):
        await task.process(action, "p3", **arguments)
    stranger = Task(task.gateway, principal="stranger")
    with pytest.raises(UnknownProcess, match="This task has no process 'p1'"):
        await stranger.process(action, "p1", **arguments)


@pytest.mark.parametrize("wrong", ["1", "P1", "p01", "#1", "process 1", "process-1", " p1 "])
async def test_an_unknown_name_is_answered_with_the_nearest(gateway: GatewayFactory, wrong: str) -> None:
    async with gateway(LIMITS, engine="local") as gw:
        task = Task(gw)
        await task.terminal("true")
        with pytest.raises(UnknownProcess, match=r"\(did you mean 'p1'\?\); the action 'list' shows") as refused:
            await task.process("poll", wrong)
        assert "\n" not in str(refused.value)


async def test_two_kills_at_once_both_have_the_end(task: Task) -> None:
    started = await task.terminal("trap '' TERM; echo up; while :; do sleep 0.1; done", background=True)
    await task.process("wait", started.process_id, until="up")
    ends = await at_once(*[lambda: task.ask("kill", started.process_id)] * 3)
    assert [(end.status.value, end.exit_code, end.survivors) for end in ends] == [("killed", 137, 0)] * 3


async def test_two_kills_at_once_of_what_a_command_left_both_count_nobody(task: Task) -> None:
    await task.terminal("for n in 1 2 3; do setsid sleep 60 >/dev/null 2>&1 & done")
    ends = await at_once(*[lambda: task.ask("kill", "p1")] * 3)
    assert [(end.status.value, end.exit_code, end.survivors) for end in ends] == [("exited", 0, 0)] * 3
    assert all(note.startswith("It had ended before") for end in ends for note in end.notes)


async def test_writes_at_once_arrive_whole_and_the_end_of_input_after_them(task: Task) -> None:
    started = await task.terminal("sort | uniq -c", background=True)
    lines = [f"{number}" * 1000 + "\n" for number in range(5)]
    reports = await at_once(
        *[lambda line=line: task.process("write", started.process_id, data=line * 20) for line in lines]  # type: ignore[misc]
    )
    assert [report.written_bytes for report in reports] == [20_020] * 5
    await task.process("close_stdin", started.process_id)
    ended = await task.ask("wait", started.process_id, cursor=0, wait=30)
    assert ended.exit_code == 0
    whole = await task.process("wait", started.process_id, until=r"^ *20 4{1000}$", cursor=0)
    assert whole.structured()["matched"] is not None


async def test_the_end_of_input_does_not_overtake_a_write(task: Task) -> None:
    # It reads slowly, so that the write has to wait for room.
    program = (
        "import os, time\nn = 0\nwhile data := os.read(0, 65536):\n    n += len(data)\n    time.sleep(0.3)\nprint(n)"
    )
    started = await task.terminal(f"python3 -c '{program}'", background=True)
    await task.process("write", started.process_id, data="x" * 65_536)
    written, closed = await at_once(
        lambda: task.process("write", started.process_id, data="y" * 65_536),
        lambda: task.process("close_stdin", started.process_id),
    )
    assert not isinstance(closed, TaskcellError), closed
    ended = await task.ask("wait", started.process_id, cursor=0, wait=30)
    assert ended.stdout == f"{65_536 + written.written_bytes}\n"


async def test_the_end_of_input_twice_at_once_is_refused_once(task: Task) -> None:
    started = await task.terminal("cat; sleep 60", background=True)
    found = await at_once(*[lambda: task.process("close_stdin", started.process_id)] * 2)
    refused = [error for error in found if isinstance(error, BadArgument)]
    assert len(refused) == 1
    assert str(refused[0]).startswith("The standard input of 'p1' is closed")


async def test_a_write_to_a_process_that_ends_meanwhile_says_that_it_has_ended(task: Task) -> None:
    started = await task.terminal("sleep 60", background=True)
    for _ in range(2):
        await task.process("write", started.process_id, data="x" * 65_536)
    report, _ = await at_once(
        lambda: task.process("write", started.process_id, data="y" * 65_536),
        lambda: task.process("signal", started.process_id, signal="KILL"),
    )
    if isinstance(report, BadArgument):  # it had ended before
        assert "has ended" in str(report)
    else:
        assert "it does not read" not in " ".join(report.result.notes)


@pytest.mark.parametrize("end", ["reset", "close"])
@pytest.mark.parametrize(
    ("action", "arguments"),
    [*ACTIONS, ("kill", {}), ("poll", {"wait": 20}), ("wait", {}), ("wait", {"until": "never"})],
)
async def test_while_the_sandbox_goes_each_call_has_one_answer(
    gateway: GatewayFactory, end: str, action: str, arguments: dict
) -> None:
    async with gateway(LIMITS, engine="local") as gw:
        task = Task(gw)
        for delay in (0.0, 0.001, 0.005, 0.02):
            started = await task.terminal("sleep 600", pty=True, background=True)

            async def act(process_id: str = started.process_id, delay: float = delay) -> ProcessResult:
                await anyio.sleep(delay)
                return await task.ask(action, process_id, **arguments)

            found, gone = await at_once(act, lambda: task.sandbox(end))
            assert gone is None
            if isinstance(found, TaskcellError):
                assert isinstance(found, UnknownProcess | BadArgument | SandboxLost)
                assert str(found).endswith((".", "finished."))
            else:
                assert found.status.value in ("killed", "running", "lost")
                assert found.survivors == 0
            assert (await task.terminal("echo next")).stdout == "next\n"


@pytest.mark.parametrize("attempt", range(5))
async def test_a_process_that_ends_while_it_is_signalled_is_no_error(task: Task, attempt: int) -> None:
    started = await task.terminal("read x", background=True)
    signalled, _ = await at_once(
        lambda: task.ask("signal", started.process_id, signal="USR1", wait=0),
        lambda: task.process("write", started.process_id, data="\n"),
    )
    if isinstance(signalled, TaskcellError):
        assert "has ended" in str(signalled)
    assert (await task.ask("wait", started.process_id, wait=20)).status.value in ("exited", "killed")
