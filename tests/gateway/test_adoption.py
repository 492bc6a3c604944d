"""What runs in a sandbox outlives its server's connection, and the next server finds it with its output."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import anyio
import pytest

from agent_task import LIMITS, Task
from gateways import GatewayFactory
from observe import HOST_TIMEOUT, alive, marker
from taskcell.engine.base import Engine, Standing
from taskcell.errors import TaskcellError
from taskcell.gateway.apart import WantedRun
from taskcell.gateway.shells import Shells
from taskcell.model import LOCAL_PRINCIPAL, TaskKey, ToolCall
from taskcell.process.kept_output import read_overview, read_page
from taskcell.process.record import About, Record
from taskcell.process.result import status_of
from taskcell.sandbox.run import run_command
from taskcell.sandbox.sandbox import Sandbox
from taskcell.supervisor import protocol
from taskcell.supervisor.channel import Channel

pytestmark = pytest.mark.anyio

KEY = TaskKey(LOCAL_PRINCIPAL, "t")


@asynccontextmanager
async def taken_up(task: Task) -> AsyncIterator[Sandbox]:
    """The task's sandbox as another server has it: a new channel with the same token, and nothing else known."""
    pool, engine = task.gateway.pool, task.gateway.engine
    (old,) = await pool.sandboxes(KEY)
    channel = Channel(old.channel._token, 60.0)
    async with anyio.create_task_group() as serving:
        await serving.start(serve, engine, channel, old)
        with anyio.fail_after(20):
            while old.channel.alive:
                await anyio.sleep(0.01)
        sandbox = Sandbox(old.profile, old.container, channel, old.output_chars, old.spool)
        await sandbox.adopt(["bash", "-c"])
        yield sandbox
        serving.cancel_scope.cancel()


async def serve(engine: Engine, channel: Channel, old: Sandbox, *, task_status: anyio.abc.TaskStatus[None]) -> None:
    async def is_gone() -> bool:
        return await engine.standing(old.container) is Standing.ENDED

    await channel.run(lambda: engine.connect(old.container), is_gone, task_status=task_status)


async def test_the_next_server_ends_a_shell_whose_client_has_gone_with_the_last_one(task: Task) -> None:
    await task.terminal("true")
    ended: list[bool] = []
    with suppress(TaskcellError):  # the old server has lost the sandbox
        async with Shells(task.gateway).opened(KEY, "s", WantedRun()), taken_up(task) as sandbox:
            assert {record.about.text for record in sandbox.processes} >= {"bash -i"}
            with anyio.fail_after(HOST_TIMEOUT):
                while sandbox.channel.living:
                    await anyio.sleep(0.01)
            ended.append(True)
    assert ended


def found(sandbox: Sandbox, process_id: str) -> Record:
    record = sandbox.processes.get(process_id)
    assert record is not None
    return record


async def text(record: Record) -> str:
    return (await read_overview(record.process, 1000, ansi=False)).texts[0].text


async def test_a_background_process_is_found_again_with_its_output_and_goes_on(task: Task) -> None:
    mark = marker()
    await task.terminal("echo done; exit 3")
    await task.terminal("sleep 60", timeout=0.2)
    started = await task.terminal(f"echo before; read x; echo got $x; sleep {mark}", background=True, timeout=100)
    await task.ask("poll", started.process_id, cursor=0, wait=20)
    async with taken_up(task) as sandbox:
        assert [record.about.process_id for record in sandbox.processes] == ["p1", "p2", "p3"]
        assert (sandbox.processes.running, sandbox.processes.highest) == (1, 3)
        finished, timed_out, record = (found(sandbox, name) for name in ("p1", "p2", "p3"))
        assert finished.process.exit is not None
        assert (finished.process.exit.exit_code, await text(finished)) == (3, "done\n")
        assert timed_out.process.exit is not None
        assert timed_out.process.exit.reason is protocol.Reason.TIMEOUT
        assert timed_out.process.killed is not None
        assert (record.about.text[:11], record.about.timeout) == ("echo before", 100.0)
        assert not record.process.has_ended
        assert sandbox.channel.living == {record.process.number}
        assert await record.process.input.write(b"it\n", 5.0) == 3
        with anyio.fail_after(20):
            while "got it" not in (page := (await read_page(record.process, (0, 0), 1000, ansi=False)).texts[0]).text:
                await record.process.news((len(page.text), 0))
        assert page.text == "before\ngot it\n"
        await sandbox.kill(record.process)
        assert alive(mark) == []
        assert record.process.exit is not None
        assert record.process.exit.reason is protocol.Reason.KILL
        assert sandbox.channel.living == set()


async def test_how_each_process_ended_is_the_same_for_the_next_server(task: Task) -> None:
    await task.terminal("exit 3")
    await task.terminal("sleep 60", timeout=0.2)
    await task.cancelled("sleep 60")
    killed = await task.terminal("sleep 600", wait=0.1)
    await task.ask("kill", killed.process_id)
    await task.terminal("kill -USR1 $$")
    server = await task.terminal("sleep 60", background=True)
    known = [(info.status, info.exit_code) for info in (await task.process("list")).processes]
    async with taken_up(task) as sandbox:
        records = list(sandbox.processes)
        found_again = [status_of(record, closed=False) for record in records]
        assert [(status.value, code) for status, code in found_again] == known
        assert [status for status, _ in known] == [
            "exited",
            "timed_out",
            "cancelled",
            "killed",
            "killed",
            "running",
        ]
        assert known[2][1] == 130
        assert [record.about.has_timeout for record in records] == [True] * 5 + [False]
        await sandbox.kill(found(sandbox, server.process_id).process)


async def test_a_process_that_ended_meanwhile_tells_how(task: Task) -> None:
    started = await task.terminal("echo on; sleep 0.3; echo off; exit 9", background=True)
    (old,) = await task.gateway.pool.sandboxes(KEY)
    record = old.processes.get(started.process_id)
    assert record is not None
    await record.process.over()
    async with taken_up(task) as sandbox:
        record = found(sandbox, started.process_id)
        assert record.process.exit is not None
        assert record.process.exit.exit_code == 9
        assert 200 <= record.process.duration_ms < 20_000
        assert await text(record) == "on\noff\n"
        assert sandbox.processes.running == 0


async def test_the_next_server_goes_on_where_the_terminal_was_and_its_processes_get_new_numbers(task: Task) -> None:
    await task.terminal("cd /usr; export LEFT=over PATH=$PATH:/x", env={"ONCE": "only", "TERM": "vt100"})
    await task.terminal("cd /; sleep 60", wait=0.1, timeout=100)
    policy = task.gateway._policy
    tool = task.gateway.tools["terminal"]
    async with taken_up(task) as sandbox:
        call = ToolCall("local", "terminal", {"command": "echo $PWD $LEFT $ONCE $TERM $PATH", "task_id": "t"})
        result = await run_command(sandbox, policy.authorize(tool.bind(call)), "p3")
        assert result.stdout.startswith("/usr over dumb /")
        assert result.stdout.endswith(":/x\n")
        assert found(sandbox, "p3").process.number > found(sandbox, "p2").process.number
        await sandbox.kill(found(sandbox, "p2").process)


@pytest.mark.parametrize("goes_on", [False, True])
async def test_the_next_server_takes_no_variable_that_every_call_has_for_an_exported_one(
    task: Task, goes_on: bool
) -> None:
    line = "export GIT_EDITOR=ed LEFT=over"
    if goes_on:
        left = await task.terminal(f"until [ -e ~/go ]; do sleep 0.02; done; {line}", wait=0.1)
        await task.terminal("touch ~/go", background=True)
        await task.ask("wait", left.process_id, wait=20)
    else:
        await task.terminal(line)
    policy, tool = task.gateway._policy, task.gateway.tools["terminal"]
    async with taken_up(task) as sandbox:
        for pty, seen in ((False, "ed cat over"), (True, "ed  over")):
            command = 'echo "$GIT_EDITOR $PAGER $LEFT"'
            call = ToolCall("local", "terminal", {"command": command, "task_id": "t", "pty": pty})
            result = await run_command(sandbox, policy.authorize(tool.bind(call)), "p8")
            assert result.stdout.strip() == seen


@pytest.mark.parametrize("ends", ["before", "after"])
async def test_the_next_server_goes_on_where_a_handed_off_command_ends(task: Task, ends: str) -> None:
    line = "cd /usr; until [ -e ~/go ]; do sleep 0.02; done; cd /usr/bin; export TOKEN=$ONCE.2"
    first = await task.terminal("until [ -e ~/go ]; do sleep 0.02; done; cd /etc", wait=0.1)
    handed = await task.terminal(line, wait=0.1, env={"ONCE": "1"})
    if ends == "before":
        await task.terminal("touch ~/go", background=True)
        for process_id in (first.process_id, handed.process_id):
            await task.ask("wait", process_id, wait=20)
    policy, tool = task.gateway._policy, task.gateway.tools["terminal"]

    async def run(sandbox: Sandbox, process_id: str, command: str, **arguments: object) -> str:
        call = ToolCall("local", "terminal", {"command": command, "task_id": "t", **arguments})
        return (await run_command(sandbox, policy.authorize(tool.bind(call)), process_id)).stdout

    async with taken_up(task) as sandbox:
        if ends == "after":
            await run(sandbox, "p8", "touch ~/go", background=True)
            for process_id in (first.process_id, handed.process_id):
                await found(sandbox, process_id).process.over()
            assert "another command" in found(sandbox, first.process_id).unkept
        assert found(sandbox, handed.process_id).unkept == ""
        assert await run(sandbox, "p9", 'echo "$PWD $TOKEN $ONCE."') == "/usr/bin 1.2 .\n"


async def test_lost_bytes_are_counted_by_the_next_server_too(engine: str, gateway: GatewayFactory) -> None:
    async with gateway(LIMITS + 'spool = "64k"\n', engine=engine) as gw:
        task = Task(gw)
        await task.terminal("seq -w 100000")
        async with taken_up(task) as sandbox:
            reading = await read_page(found(sandbox, "p1").process, (0, 0), 14, ansi=False)
            assert (reading.lost_bytes, reading.cursors[0]) == (700_000 - 65_536, 700_000 - 65_536 + 9)


@pytest.mark.parametrize(
    "tag",
    [b"", b"{}", b"[]", b"\xff", b'{"process_id":1}', b'"x"', b"[" * 900, b'{"a":1}',
     b'{"process_id":"../x","tool":"t",'
     b'"text":"","timeout":1,"started":1,"kind":"terminal"}', b'{"process_id":"p1","tool":"t","text":"","timeout":"1",'
     b'"started":1,"kind":"terminal"}'],
)  # fmt: skip
def test_a_tag_that_is_none_of_ours_is_nothing(tag: bytes) -> None:
    assert About.from_tag(tag) is None


def test_a_tag_says_what_was_known_and_is_bounded() -> None:
    about = About("p12", "terminal", "x" * 50, 2.5, 17.25, "terminal", True, True)
    assert About.from_tag(about.tag()) == about
    longest = About(
        "p" + "9" * 12, "t" * 64, "\x01" * 120, 3600.0, 1.8e9, "terminal", key="k" * 22, given=("V" * 99,) * 9
    )
    assert len(longest.tag()) <= protocol.TAG_MAX
    assert About.from_tag(longest.tag()) == replace(longest, given=None)
    assert "secret" not in repr(About("p1", "t", "secret", 1, 1, "skill"))
