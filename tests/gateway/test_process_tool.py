"""Output by cursor, input, signals and terminals of a process."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from agent_task import LIMITS, Task
from gateways import GatewayFactory
from taskcell.errors import BadArgument, Denied, UnknownProcess
from taskcell.model import ProcessResult, ToolCall

pytestmark = pytest.mark.anyio


async def until(task: Task, process_id: str, wanted: str, **arguments: object) -> ProcessResult:
    """Poll from the start until the output holds something."""
    with anyio.fail_after(30):
        while True:
            result = await task.ask("poll", process_id, cursor=0, **arguments)
            if wanted in result.stdout:
                return result
            await task.ask("poll", process_id, cursor=result.cursor, wait=5)


async def test_polling_waits_for_what_is_new_and_gives_no_byte_twice(task: Task) -> None:
    started = await task.terminal("cat", background=True)
    first = await task.ask("write", started.process_id, data="one\n", wait=20)
    assert (first.stdout, first.cursor) == ("one\n", 4)
    nothing = await task.ask("poll", started.process_id, cursor=4)
    assert (nothing.stdout, nothing.cursor) == ("", 4)
    second = await task.ask("write", started.process_id, data="two\n", wait=20)
    assert (second.stdout, second.cursor) == ("two\n", 8)
    assert (await task.ask("poll", started.process_id, cursor=2)).stdout == "e\ntwo\n"
    with pytest.raises(BadArgument, match="past the end: the process has written 8 bytes"):
        await task.process("poll", started.process_id, cursor=9)


async def test_a_character_that_is_not_whole_yet_waits_for_its_rest(task: Task) -> None:
    started = await task.terminal("printf 'a\\303'; read x; printf '\\244b'", background=True)
    first = await task.ask("poll", started.process_id, cursor=0, wait=20)
    assert (first.stdout, first.cursor) == ("a", 1)
    whole = await task.ask("poll", started.process_id)
    assert (whole.stdout.rstrip("\ufffd"), whole.cursor) == ("a", 1)
    await task.process("write", started.process_id, data="\n")
    rest = await task.ask("wait", started.process_id, cursor=1, wait=20)
    assert (rest.stdout, rest.cursor) == ("äb", 4)


async def test_what_fell_out_of_the_spool_is_counted(engine: str, gateway: GatewayFactory) -> None:
    async with gateway(LIMITS + 'spool = "64k"\n', engine=engine) as gw:
        task = Task(gw)
        await task.terminal("seq -w 100000")
        report = await task.process("poll", "p1", cursor=70)
        assert report.result is not None
        assert report.lost_bytes == 700_000 - 65_536 - 70
        assert "no longer kept" in " ".join(report.result.notes)
        assert report.result.cursor is not None
        assert report.more_bytes == 700_000 - report.result.cursor
        last = await task.ask("poll", "p1", cursor=699_986)
        assert last.stdout == "099999\n100000\n"


async def test_head_and_tail_of_a_long_output_name_the_resource_with_the_whole(task: Task) -> None:
    answered = await task.terminal("seq 100000")
    whole = "taskcell://tasks/t/processes/p1/output"
    assert answered.left_out == f"{answered.omitted_bytes:,} bytes of the output are left out; the whole: {whole}"
    assert f"[note: {answered.left_out}]" in answered.said()
    assert answered.structured()["notes"] == [answered.left_out]
    again = await task.ask("poll", "p1")
    assert (again.stdout, again.omitted_bytes, again.truncated) == (answered.stdout, answered.omitted_bytes, True)


async def test_the_two_streams_of_a_skill_have_a_cursor_each(
    engine: str, gateway: GatewayFactory, tmp_path: Path
) -> None:
    skill = 'version="1"\n[skills.sh]\ndescription="s"\nsource="docker:taskcell/base:latest"\n'
    skill += 'docker.entrypoint=["sh","-c"]\n'
    (tmp_path / "m.toml").write_text(skill)
    async with gateway('manifests=["m.toml"]\n' + LIMITS, engine=engine) as gw:
        task = Task(gw)
        args = {"args": ["echo out; echo err >&2; sleep 1.5; echo more; echo worse >&2; exit 3"], "task_id": "t"}
        first = await gw.call(ToolCall("local", "sh", args))
        assert (first.status.value, first.stdout, first.stderr) == ("running", "out\n", "err\n")
        assert (first.cursor, first.stderr_cursor) == (4, 4)
        rest = await task.process("wait", first.process_id, cursor=4, stderr_cursor=4, wait=20)
        assert rest.result is not None
        assert (rest.result.stdout, rest.result.stderr, rest.result.exit_code) == ("more\n", "worse\n", 3)
        assert rest.result.kind == "skill"


async def test_input_can_be_written_and_ended(task: Task) -> None:
    started = await task.terminal("sort", background=True)
    report = await task.process("write", started.process_id, data="b\na\nä\n")
    assert report.written_bytes == 7
    await task.process("close_stdin", started.process_id)
    assert (await task.ask("wait", started.process_id, wait=20)).stdout == "a\nb\nä\n"
    with pytest.raises(BadArgument, match="has ended"):
        await task.process("write", started.process_id, data="c\n")


async def test_a_closed_input_takes_nothing_and_given_input_is_all_there_is(task: Task) -> None:
    closed = await task.terminal("sleep 60", wait=0.1)
    with pytest.raises(BadArgument, match="'background' or 'pty'"):
        await task.process("write", closed.process_id, data="x")
    given = await task.terminal("cat", background=True, stdin="all of it\n")
    assert (await task.ask("wait", given.process_id, wait=20)).stdout == "all of it\n"


async def test_a_process_that_does_not_read_takes_what_fits_and_the_answer_says_how_much(task: Task) -> None:
    started = await task.terminal("sleep 60", background=True, timeout=100)
    report = await task.process("write", started.process_id, data="x" * 65_536)
    assert report.written_bytes == 65_536
    taken = 0
    for _ in range(8):  # its pipe, and then the window
        report = await task.process("write", started.process_id, data="y" * 65_536)
        assert report.written_bytes is not None
        taken += report.written_bytes
        if report.written_bytes < 65_536:
            break
    assert report.written_bytes < 65_536
    assert report.result is not None
    assert "does not read" in " ".join(report.result.notes)


async def test_a_signal_reaches_the_process_and_its_name_is_checked(task: Task) -> None:
    started = await task.terminal(
        "trap 'echo caught; exit 5' USR1; echo up; while :; do sleep 0.1; done", background=True
    )
    await until(task, started.process_id, "up\n")
    await task.process("signal", started.process_id, signal="SIGUSR1")
    ended = await task.ask("wait", started.process_id, wait=20)
    assert (ended.stdout[-7:], ended.exit_code) == ("caught\n", 5)
    with pytest.raises(BadArgument, match="did you mean 'TERM'"):
        await task.process("signal", started.process_id, signal="TERMM")


async def test_a_chat_with_python_through_a_terminal(task: Task) -> None:
    started = await task.terminal("python3 -q -i", pty=True, wait=0.2)
    assert started.status.value == "running"
    await until(task, started.process_id, ">>> ")
    answer = await task.ask("write", started.process_id, data="6 * 7\n", wait=20, strip_ansi=True)
    assert "42\n>>> " in answer.stdout
    await task.process("write", started.process_id, data="import sys; print(sys.stdin.isatty(), flush=True)\n", wait=20)
    await until(task, started.process_id, "True")
    await task.process("signal", started.process_id, signal="INT", wait=5)
    await until(task, started.process_id, "KeyboardInterrupt")
    await task.process("close_stdin", started.process_id)
    assert (await task.ask("wait", started.process_id, wait=20)).exit_code == 0


async def test_a_terminal_has_its_size_and_takes_another(task: Task) -> None:
    started = await task.terminal(
        "stty size; echo $TERM; trap 'stty size' WINCH; while :; do sleep 0.1; done",
        pty=True, rows=33, cols=101, background=True,
    )  # fmt: skip
    await until(task, started.process_id, "33 101\nxterm-256color\n")
    await task.process("resize", started.process_id, rows=20, cols=60)
    await until(task, started.process_id, "20 60\n")
    plain = await task.terminal("sleep 60", background=True)
    with pytest.raises(BadArgument, match="no terminal"):
        await task.process("resize", plain.process_id, rows=20, cols=60)


async def test_colours_are_kept_and_left_out_on_demand(task: Task) -> None:
    line = "printf '\\033[1;31mred\\033[0m\\n'"
    assert (await task.terminal(line, pty=True)).stdout == "\x1b[1;31mred\x1b[0m\n"
    assert (await task.terminal(line, pty=True, strip_ansi=True)).stdout == "red\n"
    assert (await task.ask("poll", "p1", strip_ansi=True)).stdout == "red\n"
    assert (await task.ask("poll", "p1", cursor=0, strip_ansi=True)).stdout == "red\n"
    assert (await task.terminal(line)).stdout == "red\n"
    assert (await task.terminal("echo $TERM")).stdout == "dumb\n"


async def test_rules_judge_what_is_written_to_a_process(engine: str, gateway: GatewayFactory) -> None:
    rule = '[[policy.rules]]\nname = "no-rm"\ntool = "{}"\ncommand = "rm "\neffect = "deny"\nreason = "No."\n'
    async with gateway(LIMITS + rule.format("process"), engine=engine) as gw:
        task = Task(gw)
        started = await task.terminal("cat", background=True)
        with pytest.raises(Denied, match="no-rm"):
            await task.process("write", started.process_id, data="rm -r /\n")
        assert (await task.ask("write", started.process_id, data="ls\n", wait=20)).stdout == "ls\n"
    async with gateway(LIMITS + rule.format("terminal"), engine=engine) as gw:
        task = Task(gw)
        started = await task.terminal("cat", background=True)
        with pytest.raises(Denied, match="no-rm"):
            await task.process("write", started.process_id, data="rm -r /\n")


@pytest.mark.parametrize(
    ("action", "arguments", "says"),
    [
        ("poll", {}, "The action 'poll' needs 'process_id'"),
        ("write", {"process_id": "p1"}, "The action 'write' needs 'data'"),
        ("write", {"process_id": "p1", "data": ""}, "The action 'write' needs 'data'"),
        ("signal", {"process_id": "p1"}, "The action 'signal' needs 'signal'"),
        ("write", {"process_id": "p1", "data": "x" * 65_537}, "at most 65536 can be written at once"),
        ("poll", {"process_id": "p1", "cursor": -1}, "'cursor' must be at least 0"),
        ("poll", {"process_id": "p1", "cursor": "five"}, "'cursor' must be a whole number, not text"),
        ("stop", {"process_id": "p1"}, "'action' must be one of 'list', 'poll', 'wait'"),
        ("poll", {"process_id": "p1", "wait": float("nan")}, "'wait' must be a finite number"),
    ],
)
async def test_wrong_arguments_are_named(gateway: GatewayFactory, action: str, arguments: dict, says: str) -> None:
    async with gateway(engine="local") as gw:
        with pytest.raises(BadArgument, match=says):
            await Task(gw).process(action, **arguments)


async def test_a_process_that_never_was_is_told_from_the_list(task: Task) -> None:
    with pytest.raises(UnknownProcess, match="This task has no process 'p9'; the action 'list'"):
        await task.process("poll", "p9")
    assert (await task.process("list")).said() == "[no commands]"
