"""A call answers in time, and what it started goes on and can be asked for."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import anyio
import docker
import pytest

from agent_task import LIMITS, Task
from gateways import GatewayFactory
from observe import alive, eventually, marker
from taskcell.errors import BadArgument, SpawnFailed, UnknownProcess
from taskcell.model import ProcessResult, TaskKey, ToolCall
from timed_out import timed_out

pytestmark = pytest.mark.anyio


async def gone(mark: str) -> bool:
    return await anyio.to_thread.run_sync(eventually, lambda: alive(mark) == [])


async def test_a_build_that_outlives_the_wait_is_handed_off_and_fetched_whole(task: Task) -> None:
    first = await task.terminal("for i in 1 2 3 4 5 6; do echo step $i; sleep 0.4; done; exit 7")
    assert (first.status.value, first.exit_code, first.process_id) == ("running", None, "p1")
    assert first.stdout.startswith("step 1\n")
    assert first.cursor == len(first.stdout)
    assert "p1" in first.notes[0]
    rest = await task.ask("wait", "p1", cursor=first.cursor, wait=20)
    assert (rest.status.value, rest.exit_code) == ("exited", 7)
    assert first.stdout + rest.stdout == "".join(f"step {i}\n" for i in range(1, 7))


async def test_a_lost_answer_can_be_fetched_again(task: Task) -> None:
    answered = await task.terminal("seq 3; seq 3 >&2; exit 4")
    again = await task.ask("poll", answered.process_id)
    assert (again.stdout, again.exit_code, again.status) == (answered.stdout, 4, answered.status)
    assert again.duration_ms == answered.duration_ms


async def test_a_wait_of_the_calls_own_and_one_beyond_the_timeout(task: Task) -> None:
    assert (await task.terminal("sleep 30; echo done", wait=0.1)).status.value == "running"
    assert (await task.terminal("sleep 1.3; echo done", wait=60)).stdout == "done\n"
    line = "echo on; sleep 600"
    ended = await timed_out(
        lambda timeout: task.terminal(line, wait=60, timeout=timeout), lambda result: bool(result.stdout)
    )
    assert (ended.status.value, ended.stdout) == ("timed_out", "on\n")


async def test_a_command_that_was_handed_off_is_killed_at_its_timeout_with_all_it_started(task: Task) -> None:
    mark = marker()
    line = f"echo on; setsid sleep {mark} & sleep {mark}"

    async def handed_off(timeout: float) -> ProcessResult:
        first = await task.terminal(line, wait=0.1, timeout=timeout)
        assert first.status.value in ("running", "timed_out")  # a very busy machine comes to it when both are over
        return await task.ask("wait", first.process_id, wait=60)

    ended = await timed_out(handed_off, lambda result: bool(result.stdout))
    assert (ended.status.value, ended.exit_code, ended.survivors) == ("timed_out", 124, 0)
    assert ended.stdout == "on\n"
    assert alive(mark) == []


async def test_a_background_command_answers_at_once_and_says_what_cannot_be_started(task: Task) -> None:
    with anyio.fail_after(20):
        started = await task.terminal("sleep 60", background=True, timeout=100)
    assert (started.status.value, started.stdout) == ("running", "")
    with pytest.raises(SpawnFailed, match="working directory"):
        await task.terminal("true", background=True, workdir="/no/such/folder")
    assert [info.process_id for info in (await task.process("list")).processes] == [started.process_id]
    await task.process("kill", started.process_id)


async def test_a_background_command_that_ends_at_once_answers_its_end_or_goes_on(task: Task) -> None:
    started = await task.terminal("echo quick; exit 3", background=True)
    if started.status.value == "running":
        started = await task.ask("wait", started.process_id, wait=20)
    assert (started.status.value, started.exit_code, started.stdout, started.notes) == ("exited", 3, "quick\n", ())


async def test_a_background_command_does_not_move_the_terminal(task: Task) -> None:
    await task.terminal("cd /usr; export KEPT=yes")
    started = await task.terminal("cd /; export KEPT=no", background=True)
    await task.ask("wait", started.process_id, wait=20)
    assert (await task.terminal('pwd; echo "$KEPT"')).stdout == "/usr\nyes\n"


async def test_a_cancel_before_the_hand_off_kills_and_one_after_it_does_not(task: Task) -> None:
    before, after = marker(), marker()
    handed = await task.terminal(f"sleep {after}", wait=0.1)
    await task.cancelled(f"sleep {before}")
    assert alive(before) == []
    with anyio.move_on_after(0.1):
        await task.ask("wait", handed.process_id, wait=60)
    assert len(alive(after)) >= 1
    assert (await task.ask("kill", handed.process_id)).status.value == "killed"
    assert alive(after) == []


async def test_kill_ends_everything_that_a_process_started_and_counts_it(task: Task) -> None:
    mark = marker()
    started = await task.terminal(f"(setsid sleep {mark} &); trap '' TERM; echo up; sleep {mark}", background=True)
    await task.ask("poll", started.process_id, cursor=0, wait=20)
    killed = await task.ask("kill", started.process_id)
    assert (killed.status.value, killed.exit_code, killed.survivors) == ("killed", 137, 0)
    assert killed.stdout == "up\n"
    assert alive(mark) == []


async def test_closing_and_resetting_end_what_goes_on(task: Task) -> None:
    for action in ("reset", "close"):
        mark = marker()
        started = await task.terminal(f"sleep {mark}", background=True)
        seen: list[ProcessResult] = []

        async def wait(process_id: str, seen: list[ProcessResult]) -> None:
            seen.append(await task.ask("wait", process_id, wait=60))

        async with anyio.create_task_group() as waiting:
            waiting.start_soon(wait, started.process_id, seen)
            await anyio.wait_all_tasks_blocked()
            await task.sandbox(action)
        assert seen[0].status.value == "killed"
        assert any("closed, reset or replaced" in note for note in seen[0].notes)
        assert await gone(mark)
        with pytest.raises(UnknownProcess, match="list"):
            await task.process("poll", started.process_id)


async def test_the_servers_end_kills_what_goes_on(engine: str, gateway: GatewayFactory) -> None:
    mark = marker()
    async with gateway(LIMITS, engine=engine) as gw:
        await Task(gw).terminal(f"setsid sleep {mark} & sleep {mark}", background=True)
        assert await anyio.to_thread.run_sync(eventually, lambda: len(alive(mark)) >= 2)
    assert await gone(mark)


async def test_standard_input_that_is_not_taken_yet_is_fed_after_the_hand_off(task: Task) -> None:
    started = await task.terminal("sleep 0.5; wc -c", stdin="x" * 1_000_000, wait=0.1)
    assert started.status.value == "running"
    assert (await task.ask("wait", started.process_id, wait=20)).stdout == "1000000\n"


async def test_a_changed_configuration_leaves_what_goes_on_alone(engine: str, gateway: GatewayFactory) -> None:
    async with gateway(LIMITS, engine=engine) as gw:
        task = Task(gw)
        started = await task.terminal("cat", background=True)
        tool = gw.tools["terminal"]
        changed = replace(tool, profile=replace(tool.profile, pids=200))
        gw.replace_tools({**gw.tools, "terminal": changed})
        after = await task.terminal("echo new")
        assert "its configuration changed" in after.notes[0]
        answer = await task.ask("write", started.process_id, data="still here\n", wait=20)
        assert (answer.status.value, answer.stdout) == ("running", "still here\n")
        call = ToolCall("local", "sandbox", {"action": "status", "task_id": "t"})
        states = {info.state: info.processes for info in (await gw.call(call)).sandboxes}
        assert (states["ready"], states["retired"] > 0) == (0, True)
        await task.process("close_stdin", started.process_id)


@pytest.mark.engine
async def test_a_process_whose_sandbox_died_is_lost_and_not_run_again(
    gateway: GatewayFactory, docker_api: docker.APIClient
) -> None:
    async with gateway(LIMITS, engine="docker") as gw:
        task = Task(gw)
        started = await task.terminal("echo once >> ran; sleep 60", background=True)
        seen: list[ProcessResult] = []

        async def wait() -> None:
            seen.append(await task.ask("wait", started.process_id, wait=60))

        async with anyio.create_task_group() as waiting:
            waiting.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            (sandbox,) = await gw.pool.sandboxes(TaskKey("local", "t"))
            docker_api.kill(sandbox.container.id)
        assert (seen[0].status.value, seen[0].exit_code) == ("lost", None)
        assert any("not run again" in note for note in seen[0].notes)
        assert (await task.terminal("ls ran")).exit_code != 0


@pytest.mark.engine
async def test_a_container_for_one_call_waits_until_its_output_was_asked_for(
    gateway: GatewayFactory, tmp_path: Path
) -> None:
    (tmp_path / "m.toml").write_text(
        'version="1"\n[skills.once]\ndescription="s"\nsource="docker:taskcell/base:latest"\n'
        'docker.entrypoint=["sh","-c"]\ndocker.reuse="call"\n'
    )
    async with gateway('manifests=["m.toml"]\n' + LIMITS, engine="docker") as gw:
        task = Task(gw)
        await task.terminal("true")
        arguments = {"args": ["echo on; sleep 1.5; echo off"], "task_id": "t"}
        started = await gw.call(ToolCall("local", "once", arguments))
        assert (started.status.value, started.stdout) == ("running", "on\n")
        await anyio.sleep(1.0)  # it ends meanwhile, and nobody has asked
        ended = await task.ask("wait", started.process_id, wait=20)
        assert (ended.status.value, ended.stdout) == ("exited", "on\noff\n")
        with anyio.fail_after(30):
            while [info for info in (await task.process("list")).processes if info.process_id == started.process_id]:
                await anyio.sleep(0.05)


async def test_another_tasks_and_another_principals_processes_do_not_exist(task: Task) -> None:
    started = await task.terminal("sleep 60", background=True)
    for other in (Task(task.gateway, task="other"), Task(task.gateway, principal="somebody")):
        assert (await other.process("list")).processes == ()
        for action in ("poll", "kill"):
            with pytest.raises(UnknownProcess):
                await other.process(action, started.process_id)
    assert (await task.ask("poll", started.process_id)).status.value == "running"


async def test_no_more_commands_run_at_once_than_the_limit_says(engine: str, gateway: GatewayFactory) -> None:
    async with gateway(LIMITS + "max_processes = 2\n", engine=engine) as gw:
        task = Task(gw)
        started = [await task.terminal("sleep 60", background=True) for _ in range(2)]
        with pytest.raises(BadArgument, match="no more may at once"):
            await task.terminal("true")
        await task.process("kill", started[0].process_id)
        assert (await task.terminal("echo room")).stdout == "room\n"


async def test_the_64_that_finished_last_can_be_asked_for(task: Task) -> None:
    first = await task.terminal("sleep 60", background=True)
    for number in range(2, 68):
        assert (await task.terminal(f"echo {number}")).process_id == f"p{number}"
    known = [info.process_id for info in (await task.process("list")).processes]
    assert known == ["p1", *(f"p{number}" for number in range(4, 68))]
    assert (await task.ask("poll", "p4")).stdout == "4\n"
    assert (await task.ask("poll", first.process_id)).status.value == "running"
    with pytest.raises(UnknownProcess, match="64 newer"):
        await task.process("poll", "p3")


async def test_fifty_processes_at_once_keep_their_output_whole_and_in_order(task: Task) -> None:
    """All write at the same time, in small pieces; each is fetched page by page."""
    program = (
        "import sys, time\n"
        "for i in range(2000):\n"
        "    sys.stdout.write(f'{sys.argv[1]}-{i:05d} äöü\\n')\n"
        "    if i % 100 == 0: sys.stdout.flush(); time.sleep(0.001)\n"
    )
    await task.terminal("cat > w.py", stdin=program)
    started = [await task.terminal(f"python3 w.py {n}", background=True, timeout=100) for n in range(50)]

    async def check(n: int, process_id: str) -> None:
        pieces, cursor = [], 0
        while True:
            report = await task.process("poll", process_id, cursor=cursor, wait=5)
            assert report.result is not None
            assert report.lost_bytes == 0
            assert report.result.cursor is not None
            pieces.append(report.result.stdout)
            assert len(pieces[-1]) <= 2000
            cursor = report.result.cursor
            if report.result.status.value == "exited" and not report.more_bytes:
                break
        wanted = "".join(f"{n}-{i:05d} äöü\n" for i in range(2000)).encode()
        got = "".join(pieces).encode()
        assert cursor == len(wanted)
        assert hashlib.sha256(got).digest() == hashlib.sha256(wanted).digest()

    with anyio.fail_after(120):
        async with anyio.create_task_group() as checking:
            for n, result in enumerate(started):
                checking.start_soon(check, n, result.process_id)
