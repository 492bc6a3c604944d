"""What every engine must do, whichever it is: one suite, run on each."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator

import anyio
import pytest

from gateways import GatewayFactory
from observe import alive, eventually, marker
from taskcell.errors import BadArgument, SpawnFailed, UnknownTool
from taskcell.gateway.gateway import Gateway
from taskcell.model import ProcessResult, ToolCall
from timed_out import timed_out

pytestmark = pytest.mark.anyio


@pytest.fixture(
    params=[
        "local",
        pytest.param("docker", marks=pytest.mark.engine),
        pytest.param("kubernetes", marks=pytest.mark.kubernetes),
    ]
)
async def gw(request: pytest.FixtureRequest, gateway: GatewayFactory) -> AsyncIterator[Gateway]:
    # A pod has no bound of its own on processes: its kubelet has one for every pod.
    toml = "manifests = []\n[policy]\nallow_unenforced = ['pids']\n" if request.param == "kubernetes" else ""
    async with gateway(toml, engine=request.param) as opened:
        yield opened


async def terminal(gw: Gateway, command: str, **arguments: object) -> ProcessResult:
    return await gw.call(ToolCall("local", "terminal", {"command": command, **arguments}))


async def test_a_command_answers_its_output_and_exit_code(gw: Gateway) -> None:
    result = await terminal(gw, "echo out; echo err >&2; exit 7")
    assert (result.status.value, result.exit_code, result.signal) == ("exited", 7, None)
    assert (result.stdout, result.stderr) == ("out\nerr\n", "")
    assert (result.survivors, result.truncated, result.omitted_bytes, result.notes) == (0, False, 0, ())
    assert result.process_id == "p1"


async def test_merged_output_keeps_its_order(gw: Gateway) -> None:
    result = await terminal(gw, "for i in 1 2 3 4 5; do echo o$i; echo e$i >&2; done")
    assert result.stdout == "".join(f"o{i}\ne{i}\n" for i in range(1, 6))


async def test_a_command_that_dies_by_a_signal_says_which(gw: Gateway) -> None:
    result = await terminal(gw, "kill -KILL $$")
    assert (result.status.value, result.exit_code, result.signal) == ("killed", 137, "SIGKILL")


async def test_stdin_is_exactly_what_was_given(gw: Gateway) -> None:
    text = "a\x00b\n" + "é" * 200_000
    result = await terminal(gw, "sha256sum", stdin=text)
    assert result.stdout.split()[0] == hashlib.sha256(text.encode()).hexdigest()


async def test_without_stdin_a_reader_sees_its_end_at_once(gw: Gateway) -> None:
    assert (await terminal(gw, "cat; echo end")).stdout == "end\n"


async def test_two_hundred_kilobytes_for_a_command_that_never_reads_do_not_block(gw: Gateway) -> None:
    with anyio.fail_after(20):
        result = await terminal(gw, "sleep 0.3; echo done", stdin="x" * 200_000)
    assert result.stdout == "done\n"


async def test_the_terminal_goes_on_where_it_ended(gw: Gateway) -> None:
    await terminal(gw, "mkdir sub; cd sub; export A='two\nlines' B=b; C=not-exported")
    result = await terminal(gw, 'basename "$PWD"; echo "[$A] [$B] [$C]"; unset B')
    assert result.stdout == "sub\n[two\nlines] [b] []\n"
    assert (await terminal(gw, 'echo "[$B]"')).stdout == "[]\n"


async def test_variables_given_for_one_call_are_gone_at_the_next_and_give_back_what_they_hid(gw: Gateway) -> None:
    await terminal(gw, "export A=old")
    assert (await terminal(gw, 'echo "$A $B"', env={"A": "new", "B": "b"})).stdout == "new b\n"
    assert (await terminal(gw, 'echo "$A [$B]"')).stdout == "old []\n"


UNATTENDED = "PAGER GIT_PAGER GIT_EDITOR GIT_TERMINAL_PROMPT DEBIAN_FRONTEND"


async def test_without_a_terminal_nothing_waits_for_a_person_unless_the_caller_says_so(gw: Gateway) -> None:
    assert (await terminal(gw, f"printenv {UNATTENDED}")).stdout == "cat\ncat\ntrue\n0\nnoninteractive\n"
    assert (await terminal(gw, "printenv PAGER", env={"PAGER": "less"})).stdout == "less\n"
    await terminal(gw, "export GIT_EDITOR=ed")
    assert (await terminal(gw, "printenv GIT_EDITOR PAGER")).stdout == "ed\ncat\n"
    assert (await terminal(gw, f"printenv {UNATTENDED}", pty=True)).stdout == "ed\n"


async def test_a_working_directory_for_one_call_is_relative_to_the_workspace(gw: Gateway) -> None:
    await terminal(gw, "mkdir -p a/b")
    result = await terminal(gw, 'basename "$PWD"', workdir="a/b")
    assert result.stdout == "b\n"


@pytest.mark.parametrize(("workdir", "folder"), [("~", "."), ("~/a/b", "a/b"), ("~//a", "a")])
async def test_the_home_in_a_working_directory_is_the_workspace(gw: Gateway, workdir: str, folder: str) -> None:
    await terminal(gw, "mkdir -p a/b")
    here = (await terminal(gw, f"cd {folder} && pwd", workdir=".")).stdout
    assert (await terminal(gw, "pwd", workdir=workdir)).stdout == here


async def test_a_syntax_error_is_the_shells_and_the_line_numbers_are_right(gw: Gateway) -> None:
    result = await terminal(gw, "echo one\nif true; fi")
    assert result.exit_code == 2
    assert "line 2" in result.stdout


async def test_a_path_without_the_shell_does_not_lock_the_terminal_out(gw: Gateway) -> None:
    await terminal(gw, "export PATH=/nowhere; cd /")
    result = await terminal(gw, 'echo "$PATH"; pwd')
    assert result.stdout == "/nowhere\n/\n"
    assert (await terminal(gw, 'echo "$PATH"', env={"PATH": "/elsewhere"})).stdout == "/elsewhere\n"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("cd /; c=exec; $c true", "its shell was replaced by exec"),
        ("cd /; set -v", "set -v"),
        ("cd /; trap : DEBUG", "DEBUG"),
        ("cd /; ulimit -n 4", "open files"),
    ],
)
async def test_an_answer_says_why_it_is_not_known_where_the_command_ended(gw: Gateway, line: str, why: str) -> None:
    result = await terminal(gw, line)
    assert result.notes[0].startswith("Its folder and variables are not kept, because ")
    assert why in result.notes[0]
    assert (await terminal(gw, 'basename "$PWD"')).stdout != "/\n"


@pytest.mark.parametrize(
    "end",
    [
        "exit 3",
        "exec true",
        "command exec true",
        "exec sh -c 'exit 4'",
        "(exec true); true",
        "exec nothing-like-that",
        "set -e; false",
        "exec 2>&- 1>&- 0<&-",
        "trap 'echo bye' EXIT",
        "trap 'exit 5' EXIT; exit 4",
        "ulimit -f 0",
        "export() { :; }; pwd() { :; }; printf() { :; }; builtin() { command builtin true; }; unset -f builtin",
        "IFS=; set -u; : $nothing",
        "readonly A=1; A=2",
        "shopt -s expand_aliases\nalias export=true pwd=true printf=true",
    ],
)
async def test_the_terminal_goes_on_where_it_ended_however_it_did(gw: Gateway, end: str) -> None:
    await terminal(gw, f"cd /; export LEFT=behind; exec 2>&1; {end}")
    assert (await terminal(gw, 'pwd; echo "$LEFT"')).stdout == "/\nbehind\n"


async def test_a_timeout_keeps_what_was_printed(gw: Gateway) -> None:
    line = "echo before; sleep 300"
    result = await timed_out(lambda timeout: terminal(gw, line, timeout=timeout), lambda result: bool(result.stdout))
    assert (result.status.value, result.exit_code, result.stdout) == ("timed_out", 124, "before\n")


async def test_a_cancel_kills_everything_and_the_sandbox_works_on(gw: Gateway) -> None:
    mark = marker()
    await terminal(gw, "true")
    async with anyio.create_task_group() as calls:
        calls.start_soon(terminal, gw, f"setsid sleep {mark} & sleep {mark}")
        assert await anyio.to_thread.run_sync(eventually, lambda: len(alive(mark)) >= 2)
        calls.cancel_scope.cancel()
    assert alive(mark) == []
    assert (await terminal(gw, "echo works")).stdout == "works\n"


async def test_closing_a_task_under_a_command_kills_it_and_says_so(gw: Gateway) -> None:
    mark = marker()
    results: list[ProcessResult] = []

    async def long() -> None:
        results.append(await terminal(gw, f"echo begun; sleep {mark}"))

    async with anyio.create_task_group() as calls:
        calls.start_soon(long)
        assert await anyio.to_thread.run_sync(eventually, lambda: bool(alive(mark)))
        await gw.call(ToolCall("local", "sandbox", {"action": "close"}))
    assert alive(mark) == []
    assert (results[0].status.value, results[0].stdout) == ("killed", "begun\n")
    assert (await terminal(gw, "ls -A")).stdout == ""


async def test_many_commands_at_once_in_one_sandbox_keep_their_outputs_apart(gw: Gateway) -> None:
    results: dict[int, str] = {}

    async def call(number: int) -> None:
        result = await terminal(gw, f"for i in 1 2 3; do echo {number}-$i; sleep 0.01; done")
        results[number] = result.stdout

    with anyio.fail_after(60):
        async with anyio.create_task_group() as calls:
            for number in range(30):
                calls.start_soon(call, number)
    assert results == {number: "".join(f"{number}-{i}\n" for i in (1, 2, 3)) for number in range(30)}


async def test_bad_calls_cost_nothing_but_their_answer(gw: Gateway) -> None:
    with pytest.raises(UnknownTool, match="did you mean 'terminal'"):
        await gw.call(ToolCall("local", "terminl", {}))
    with pytest.raises(BadArgument, match="command"):
        await gw.call(ToolCall("local", "terminal", {}))
    with pytest.raises(SpawnFailed, match=r"no such folder|No such file"):
        await terminal(gw, "true", workdir="nowhere")
    assert (await terminal(gw, "echo works")).stdout == "works\n"
