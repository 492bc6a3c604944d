"""Where the next terminal command starts when one goes on without its call, and what the answers say about it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

from agent_task import LIMITS, Task
from gateways import GatewayFactory
from taskcell.errors import SpawnFailed
from taskcell.model import ProcessResult

pytestmark = pytest.mark.anyio

#: Moves, goes on until it is let go, and moves again.
MOVES = "cd /usr; export TOKEN=1; until [ -e ~/go ]; do sleep 0.02; done; cd /usr/bin; export TOKEN=2"


@pytest.fixture(params=["local", pytest.param("docker", marks=pytest.mark.engine)])
async def task(request: pytest.FixtureRequest, gateway: GatewayFactory) -> AsyncIterator[Task]:
    async with gateway(LIMITS, engine=request.param) as gw:
        yield Task(gw)


async def here(task: Task) -> str:
    return (await task.terminal('echo "$PWD $TOKEN"')).stdout.strip()


async def let_go(task: Task, process_id: str) -> ProcessResult:
    """Let a command that goes on come to its end, without another command in the foreground."""
    await task.terminal("touch ~/go", background=True)
    return await task.ask("wait", process_id, wait=20)


def note_of(result: ProcessResult) -> str:
    """The one note on where the next command starts."""
    (note,) = [note for note in result.notes if "next command starts" in note]
    return note


async def test_the_next_command_starts_where_a_handed_off_one_ended(task: Task) -> None:
    home = (await task.terminal("pwd")).workdir
    first = await task.terminal(MOVES, wait=0.1, env={"TOKEN": "0", "ONCE": "x"})
    assert first.status.value == "running"
    assert note_of(first) == (
        f"The next command starts where this one ends; one that is started before that starts in '{home}'."
    )
    ended = await let_go(task, first.process_id)
    assert (ended.status.value, ended.workdir, ended.notes) == ("exited", "/usr/bin", ())
    after = await task.terminal('echo "$PWD $TOKEN $ONCE"')
    assert (after.stdout, after.workdir) == ("/usr/bin 2 \n", "/usr/bin")


async def test_another_command_that_is_started_meanwhile_decides_where_the_next_one_starts(task: Task) -> None:
    await task.terminal("cd /tmp; export TOKEN=own")
    first = await task.terminal(MOVES, wait=0.1)
    assert await here(task) == "/tmp own"
    for asked in (await task.ask("poll", first.process_id), await let_go(task, first.process_id)):
        assert note_of(asked) == (
            "Its folder and variables are not kept, because another command was started before it ended; the next "
            "command starts in '/tmp'."
        )
    assert await here(task) == "/tmp own"


async def test_a_background_command_never_moves_the_terminal_and_takes_nothing_from_one_that_does(task: Task) -> None:
    first = await task.terminal(MOVES, wait=0.1)
    started = await task.terminal("cd /etc; export TOKEN=background", background=True)
    ended = await task.ask("wait", started.process_id, wait=20)
    assert not [note for note in ended.notes if "next command" in note]
    await let_go(task, first.process_id)
    assert await here(task) == "/usr/bin 2"


async def test_of_two_that_were_handed_off_the_one_that_was_started_last_counts(task: Task) -> None:
    first = await task.terminal(MOVES.replace("2", "first"), wait=0.1)
    second = await task.terminal(MOVES, wait=0.1)
    assert "another command" in note_of(await let_go(task, first.process_id))
    assert not (await task.ask("wait", second.process_id, wait=20)).notes
    assert await here(task) == "/usr/bin 2"


async def test_of_two_calls_at_once_the_one_that_waits_no_longer_leaves_the_terminal_to_the_other(task: Task) -> None:
    results: list[ProcessResult] = []

    async def older() -> None:
        results.append(await task.terminal(f"touch began; {MOVES}", wait=3))

    async with anyio.create_task_group() as calls:
        calls.start_soon(older)
        await task.terminal("until [ -e began ]; do sleep 0.02; done; cd /etc; export TOKEN=younger")
    (first,) = results
    assert first.status.value == "running"
    assert note_of(first).startswith("Its folder and variables are not kept, because another command was started")
    await let_go(task, first.process_id)
    assert await here(task) == "/etc younger"


async def test_a_command_that_cannot_be_started_takes_nothing_from_one_that_goes_on(task: Task) -> None:
    first = await task.terminal(MOVES, wait=0.1)
    with pytest.raises(SpawnFailed, match="working directory"):
        await task.terminal("true", workdir="/no/such/folder")
    assert not (await let_go(task, first.process_id)).notes
    assert await here(task) == "/usr/bin 2"


@pytest.mark.parametrize(
    ("line", "arguments", "why"),
    [
        (MOVES, {"timeout": 0.4}, "it was killed at its timeout"),
        ("cd /usr; kill -KILL $$", {}, "SIGKILL ended it"),
        ("cd /usr; c=exec; $c true", {}, "its shell was replaced by exec;"),
    ],
)
async def test_an_answer_says_where_the_next_command_starts_if_not_where_it_ended(
    task: Task, line: str, arguments: dict[str, float], why: str
) -> None:
    await task.terminal("cd /tmp; export TOKEN=before")
    answered = await task.terminal(line, **arguments)
    note = note_of(answered)
    assert note.startswith(f"Its folder and variables are not kept, because {why}")
    assert note.endswith("; the next command starts in '/tmp'.")
    assert answered.workdir == "/tmp"
    assert await here(task) == "/tmp before"


async def test_after_a_hand_off_a_timeout_and_a_kill_leave_the_terminal_where_it_was(task: Task) -> None:
    await task.terminal("cd /tmp; export TOKEN=before")
    killed = await task.terminal(MOVES, wait=0.1)
    assert "it was killed;" in note_of(await task.ask("kill", killed.process_id))
    timed_out = await task.terminal(MOVES, wait=0.1, timeout=0.5)
    assert "it was killed at its timeout;" in note_of(await task.ended(timed_out.process_id))
    assert await here(task) == "/tmp before"
    # What is told is where the next one starts now.
    await task.terminal("cd /etc")
    assert note_of(await task.ask("poll", killed.process_id)).endswith("; the next command starts in '/etc'.")


async def test_a_cancelled_call_is_listed_as_cancelled_with_130_and_keeps_nothing(task: Task) -> None:
    await task.terminal("cd /tmp; export TOKEN=before")
    await task.cancelled(MOVES)
    cancelled = await task.ask("poll", "p2")
    assert (cancelled.status.value, cancelled.exit_code, cancelled.survivors) == ("cancelled", 130, 0)
    assert [(info.status, info.exit_code) for info in (await task.process("list")).processes] == [
        ("exited", 0),
        ("cancelled", 130),
    ]
    assert await here(task) == "/tmp before"


async def test_a_command_that_can_change_nothing_says_nothing_of_it(task: Task) -> None:
    await task.terminal("cd /tmp; export TOKEN=before")
    first = await task.terminal("sleep 60", wait=0.1)
    answers = [first, await task.terminal("sleep 60", timeout=0.3), await task.ask("kill", first.process_id)]
    assert not [note for answer in answers for note in answer.notes if "next command starts" in note]
    assert await here(task) == "/tmp before"
    moved = await task.terminal("sleep 60", timeout=0.3, workdir="/usr")
    assert note_of(moved).endswith("; the next command starts in '/tmp'.")


async def test_a_report_that_is_too_long_for_an_end_is_fetched_before_the_next_command(task: Task) -> None:
    line = MOVES.replace("TOKEN=2", "TOKEN=$(printf '%0100000d' 7)")
    first = await task.terminal(line, wait=0.1)
    await let_go(task, first.process_id)
    assert (await task.terminal('echo "$PWD ${#TOKEN}"')).stdout == "/usr/bin 100000\n"
    await task.terminal("cd /tmp; export TOKEN=$(printf '%090000d' 7)")
    assert (await task.terminal('echo "$PWD ${#TOKEN}"')).stdout == "/tmp 90000\n"


async def test_a_file_that_bash_env_names_is_read_by_each_later_command(task: Task) -> None:
    await task.terminal("printf 'f() { cd /usr; }; shopt -s extglob' >~/first; export BASH_ENV=~/first")
    assert (await task.terminal("shopt extglob")).stdout.split() == ["extglob", "on"]
    assert (await task.terminal("f", wait=20)).workdir == "/usr"
    await task.terminal("export -n BASH_ENV")
    assert (await task.terminal("f")).exit_code == 127


async def test_an_exported_array_costs_neither_folder_nor_variables(task: Task) -> None:
    ended = await task.terminal("declare -ax LIST=(1 'a b'); cd /usr; export TOKEN=1")
    assert (ended.workdir, ended.notes) == ("/usr", ())
    assert await here(task) == "/usr 1"
