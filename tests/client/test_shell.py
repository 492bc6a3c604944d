"""The client for programs: shells that stay, on the local engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import anyio
import anyio.abc
import anyio.to_thread
import pytest

from client_serving import LOCAL_ENGINE, served
from gateways import GatewayFactory
from observe import alive, eventually, marker
from taskcell.client.failures import ArgumentError, CapacityError, DeniedError, NotFoundError
from taskcell.client.process import OutputPiece
from taskcell.client.shell import Shell, ShellEndedError
from taskcell.client.task import Task
from timed_out import timed_out

pytestmark = pytest.mark.anyio

#: Seconds that a command runs which is meant to be ended: longer than any test may take.
LONG = 1000


@pytest.fixture
async def own(gateway: GatewayFactory, tmp_path: Path) -> AsyncIterator[Task]:
    async with served(gateway, tmp_path / "state") as client:
        yield await client.open("own")


def _once(group: anyio.abc.TaskGroup, work: Callable[[], Awaitable[None]]) -> Callable[[OutputPiece], None]:
    begun: list[bool] = []

    def call(_: OutputPiece) -> None:
        if not begun:
            begun.append(True)
            group.start_soon(work)

    return call


async def interrupt_when_it_runs(shell: Shell, line: str) -> tuple[int, bytes]:
    """Run a line that says `on` first, interrupt it then, and return its exit code and output."""
    async with anyio.create_task_group() as group:
        done = await shell.run(f"echo on; {line}", on_output=_once(group, shell.interrupt))
    return done.exit_code, done.stdout


async def test_what_a_command_sets_is_there_for_the_next(own: Task) -> None:
    async with own.shell(env={"GIVEN": "yes"}, cwd="/") as shell:
        await shell.run(
            "plain=1; export shown=2; f() { echo f$1; }; umask 077; set -o noglob; shopt -s extglob; cd /tmp"
        )
        done = await shell.run("pwd; echo $plain$shown$GIVEN *; f 3; umask")
        assert done.stdout == b"/tmp\n12yes *\nf3\n0077\n"
        assert done.stderr == b""


async def test_each_command_has_its_code_and_its_streams(own: Task) -> None:
    async with own.shell() as shell:
        done = await shell.run("echo out; echo err >&2; false")
        assert (done.exit_code, done.stdout, done.stderr) == (1, b"out\n", b"err\n")
        assert (await shell.run("echo $?")).stdout == b"1\n"
        done = await shell.run("if then")
        assert done.exit_code == 2
        assert b"syntax error" in done.stderr
        assert (await shell.run("(exit 200)")).exit_code == 200
        assert (await shell.run("break; return 3; :")).exit_code == 0
        assert (await shell.run("")).exit_code == 0


async def test_all_output_of_a_command_is_in_its_answer_and_none_in_the_next(own: Task) -> None:
    async with own.shell() as shell:
        done = await shell.run("seq 200000; seq 100 >&2; printf '\\377\\0'")
        assert done.stdout == "".join(f"{number}\n" for number in range(1, 200001)).encode() + b"\xff\0"
        assert len(done.stderr) == 292
        for number in range(20):
            assert (await shell.run(f"printf {number}; printf e >&2")).stdout == str(number).encode()


async def test_lines_quotes_and_tracing_are_those_of_bash(own: Task) -> None:
    async with own.shell() as shell:
        assert (await shell.run("cat <<'X'\n'$HOME'\nX\necho \"it's\"")).stdout == b"'$HOME'\nit's\n"
        await shell.run("set -x")
        done = await shell.run("echo a")
        assert (done.stdout, done.stderr) == (b"a\n", b"++ echo a\n")
        await shell.run("set +x; exec 2>&1")
        assert (await shell.run("echo to err >&2")).stdout == b"to err\n"


async def test_input_comes_at_any_time_and_only_to_commands(own: Task) -> None:
    async with own.shell() as shell:
        await shell.write(b"early\n")
        assert (await shell.run("read -r word; echo $word")).stdout == b"early\n"
        async with anyio.create_task_group() as group:
            done = await shell.run(
                "echo on; read -r word; echo got $word",
                on_output=lambda piece: group.start_soon(_answer, shell, piece.data),
            )
        assert done.stdout == b"on\ngot late\n"


async def _answer(shell: Shell, heard: bytes) -> None:
    if heard.startswith(b"on"):
        await shell.write(b"late\n")


async def test_a_command_that_interrupts_its_own_shell_ends_and_the_shell_goes_on(own: Task) -> None:
    async with own.shell() as shell:
        done = await shell.run("echo on; kill -INT $$; echo not")
        assert (done.exit_code, done.stdout) == (130, b"on\n")
        assert (await shell.run("echo $?")).stdout == b"130\n"


@pytest.mark.parametrize(
    ("line", "own_words", "next_words"),
    [
        ("trap 'echo err' ERR; false", "err\n", "1\n"),
        # Once for the line, and once for its command.
        ("trap 'echo debug' DEBUG; :", "debug\n", "debug\ndebug\n0\n"),
        ("BASH_XTRACEFD=1; set -x; :", "++ :\n", "++ echo 0\n0\n"),
        ("set -o posix; (exit 3)", "", "3\n"),
    ],
)
async def test_traps_and_traces_show_the_commands_of_the_user_alone(
    own: Task, line: str, own_words: str, next_words: str
) -> None:
    async with own.shell() as shell:
        for words, text in ((line, own_words), ("echo $?", next_words)):
            done = await shell.run(words)
            assert (done.stdout.decode(), done.stderr) == (text, b"")


@pytest.mark.parametrize("line", [f"sleep {LONG}", "while :; do :; done", f"(sleep {LONG}); echo not"])
async def test_an_interrupt_ends_the_command_and_not_the_shell(own: Task, line: str) -> None:
    async with own.shell() as shell:
        await shell.run("kept=1")
        assert await interrupt_when_it_runs(shell, line) == (130, b"on\n")
        assert (await shell.run("echo $kept")).stdout == b"1\n"


async def test_a_trap_may_take_the_interrupt(own: Task) -> None:
    async with own.shell() as shell:
        await shell.run("trap 'echo trapped' INT")
        assert (await interrupt_when_it_runs(shell, f"sleep {LONG}; echo after"))[1] == b"on\ntrapped\nafter\n"
        assert (await shell.run("echo next")).stdout == b"next\n"


async def test_a_time_out_interrupts_and_the_shell_stays(own: Task) -> None:
    async with own.shell() as shell:
        line = f"echo before; sleep {LONG}"
        done = await timed_out(lambda timeout: shell.run(line, timeout=timeout), lambda done: bool(done.stdout))
        assert (done.status, done.exit_code, done.stdout) == ("timed_out", 124, b"before\n")
        assert (await shell.run("echo alive")).stdout == b"alive\n"


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("echo bye; exit 7", 7),
        ("echo bye; exec sh -c 'exit 4'", 4),
        ("echo bye; kill -9 $$", 137),
        ("echo bye; set -e; false", 1),
        ('echo bye; for fd in $(seq 3 99); do eval "exec $fd>&-"; done', 125),
        ("echo bye; ulimit -n 3", 125),
    ],
)
async def test_a_command_that_breaks_the_shell_is_told_as_that(own: Task, line: str, code: int) -> None:
    async with own.shell() as shell:
        with pytest.raises(ShellEndedError) as ended:
            await shell.run(line)
        assert (ended.value.done.exit_code, ended.value.done.stdout) == (code, b"bye\n")
        with pytest.raises(NotFoundError, match="has ended"):
            await shell.run("true")


async def test_many_shells_are_apart_and_end_with_what_they_started(own: Task) -> None:
    mark = marker()
    async with own.shell("a") as first, own.shell("b") as second:
        await first.run("x=1")
        await second.run(f"x=2; setsid sleep {mark} >/dev/null 2>&1 &")
        assert [(await each.run("echo $x")).stdout for each in (first, second)] == [b"1\n", b"2\n"]
        with pytest.raises(ArgumentError, match="already"):
            async with own.shell("a"):
                pass
        assert alive(mark)
        pipes = (await first.run("declare -f __taskcell_end | grep -o '/tmp/.shell-[A-Za-z0-9]*' | head -1")).stdout
        assert (await own.run(["ls", "-d", pipes.decode().strip()])).ok
    while (await own.run(["ls", "-d", pipes.decode().strip()])).ok:  # bounded by the test's own time
        await anyio.sleep(0.05)
    assert await anyio.to_thread.run_sync(lambda: eventually(lambda: not alive(mark)))


async def test_one_command_runs_at_a_time(own: Task) -> None:
    async with own.shell() as shell, anyio.create_task_group() as group:

        async def second() -> None:
            with pytest.raises(CapacityError, match="runs a command"):
                await shell.run("true")
            await shell.write(b"go\n")

        done = await shell.run("echo on; read -r word; echo $word", on_output=_once(group, second))
        assert done.stdout == b"on\ngo\n"


async def test_a_cancelled_command_is_interrupted_and_the_next_one_waits_for_that(own: Task) -> None:
    mark = marker()
    async with own.shell() as shell:
        with anyio.CancelScope() as scope:
            await shell.run(f"x=kept; bash -c 'echo on; exec sleep {mark}'", on_output=lambda _: scope.cancel())
        assert (await shell.run("echo $x")).stdout == b"kept\n"
        assert await anyio.to_thread.run_sync(lambda: eventually(lambda: not alive(mark)))


async def test_the_policy_judges_each_command(gateway: GatewayFactory, tmp_path: Path) -> None:
    rule = '[[policy.rules]]\nname = "no-rm"\ntool = "terminal"\ncommand = "rm -rf"\neffect = "deny"\nreason = "No."'
    async with served(gateway, tmp_path / "state", LOCAL_ENGINE + rule) as client:
        task = await client.open("t")
        async with task.shell() as shell:
            with pytest.raises(DeniedError):
                await shell.run("rm -rf x")
            assert (await shell.run("echo on")).stdout == b"on\n"
