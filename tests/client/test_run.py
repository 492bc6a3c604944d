"""The client for programs: commands with exact bytes, over each way to a server, on the local engine."""

from __future__ import annotations

import ast
import inspect
import resource
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from client_serving import LOCAL_ENGINE, served
from gateways import GatewayFactory
from observe import alive, eventually, marker
from taskcell.client import blocking, cell, connect, process, shell, task
from taskcell.client.failures import (
    ArgumentError,
    CellError,
    DeniedError,
    FolderError,
    NotFoundError,
    TooLargeError,
)
from taskcell.client.process import INLINE_STDIN, CommandFailed
from taskcell.client.task import Task
from timed_out import timed_out

pytestmark = pytest.mark.anyio


@pytest.fixture
async def cells(gateway: GatewayFactory, tmp_path: Path) -> AsyncIterator[cell.Cell]:
    async with served(gateway, tmp_path / "state") as client:
        yield client


@pytest.fixture
async def own(cells: cell.Cell) -> Task:
    return await cells.open("own")


async def test_a_command_has_its_code_and_both_streams_apart(own: Task) -> None:
    done = await own.run("echo out; echo err >&2; exit 3")
    assert (done.status, done.exit_code, done.signal) == ("exited", 3, None)
    assert (done.stdout, done.stderr) == (b"out\n", b"err\n")
    with pytest.raises(CommandFailed, match="3: err"):
        done.check()


async def test_bytes_go_in_and_come_out_as_they_are(own: Task) -> None:
    every = bytes(range(256)) * 3
    assert (await own.run(["cat"], stdin=every)).stdout == every
    assert (await own.run(["printf", "%s", b"\xff\xfe".decode("utf-8", "surrogateescape")])).stdout == b"\xff\xfe"


async def test_words_are_not_for_a_shell_and_may_be_empty(own: Task) -> None:
    done = await own.run(["printf", "<%s>", "", "$HOME", "a b", "*"])
    assert done.stdout == b"<><$HOME><a b><*>"
    assert (await own.run("")).exit_code == 0


async def test_as_many_words_as_linux_takes_reach_a_program(own: Task) -> None:
    words = ["bash", "-c", 'printf "%s,%s" "$#" "${*: -1}"', "bash", *["x" * 1000] * 1900, "last"]
    assert (await own.run(words)).stdout == b"1901,last"
    for many in (["x" * 1000] * 2200, ["x" * 131072], [""] * 240000):
        with pytest.raises(TooLargeError, match="stdin or a file"):
            await own.run(["true", *many])
    if resource.getrlimit(resource.RLIMIT_STACK)[0] == 8 << 20:  # then the kernel's own bound is the one of the test
        with pytest.raises(TooLargeError, match="rgument list too long"):
            await own.run(["true", *["x" * 1000] * 2000], env={"A": "x" * 100_000, "B": "x" * 100_000})


async def test_output_and_input_have_no_limit_of_their_own(own: Task) -> None:
    large = bytes(range(256)) * (5 << 12)
    done = await own.run("cat; echo end >&2", stdin=large)
    assert done.stdout == large
    assert done.stderr == b"end\n"

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(3):
            yield b"%d\n" % number

    assert (await own.run(["cat"], stdin=pieces())).stdout == b"0\n1\n2\n"


@pytest.mark.parametrize("size", [1 << 16, (1 << 16) + 1, INLINE_STDIN, INLINE_STDIN + 1])
async def test_input_of_any_size_comes_whole_and_ends(own: Task, size: int) -> None:
    data = (bytes(range(256)) * (size // 256 + 1))[:size]
    assert (await own.run(["cat"], stdin=data)).stdout == data
    assert (await own.run("exec 0<&-; echo done", stdin=data)).stdout == b"done\n"


async def test_input_that_nobody_reads_does_not_hold_up_the_end(own: Task) -> None:
    done = await own.run("exec 0<&-; echo done", stdin=b"x" * 3_000_000)
    assert done.stdout == b"done\n"


async def test_nothing_of_one_run_changes_the_next(own: Task) -> None:
    await own.run("cd /; export A=1; umask 077; f() { :; }", env={"B": "2"})
    done = await own.run('pwd; echo "${A-}${B-}"; umask; type f || true', cwd="/tmp")
    assert done.stdout == b"/tmp\n\n0022\n"


async def test_a_time_out_kills_everything_that_was_started(own: Task) -> None:
    mark = marker()
    line = f"setsid sleep {mark} & echo before; sleep {mark}"
    done = await timed_out(lambda timeout: own.run(line, timeout=timeout), lambda done: bool(done.stdout))
    assert (done.status, done.exit_code, done.stdout, done.survivors) == ("timed_out", 124, b"before\n", 0)
    assert eventually(lambda: not alive(mark))


async def test_a_cancelled_run_is_killed(own: Task) -> None:
    mark = marker()
    async with own.start(f"echo on; sleep {mark} & wait") as started:
        async for piece in started:
            assert piece.data == b"on\n"
            break
    assert await anyio.to_thread.run_sync(lambda: eventually(lambda: not alive(mark)))


async def test_output_comes_as_it_is_written_and_input_goes_at_any_time(own: Task) -> None:
    async with own.start("while read -r word; do echo got $word; done", stdin=None) as started:
        heard = []
        await started.write(b"one\n")
        async for piece in started:
            heard.append(piece.data)
            await (started.write(b"two\n") if len(heard) == 1 else started.close_stdin())
        assert heard == [b"got one\n", b"got two\n"]
        assert (await started.wait()).exit_code == 0


async def test_a_reader_that_is_slow_loses_nothing(own: Task) -> None:
    async with own.start(["seq", "1000000"]) as started:
        await own.run(["true"])
        done = await started.wait()
    assert done.stdout == "".join(f"{number}\n" for number in range(1, 1000001)).encode()


async def test_signals_reach_a_command_and_their_end_is_named(own: Task) -> None:
    async with own.start("echo on; exec sleep 1000") as started:
        async for _ in started:
            break
        await started.signal("SIGTERM")
        done = await started.wait()
    assert (done.status, done.signal, done.exit_code) == ("killed", "SIGTERM", 143)


async def test_what_cannot_run_is_an_error_of_its_own_class(own: Task) -> None:
    with pytest.raises(NotFoundError, match="no-such-program"):
        await own.run(["no-such-program"])
    with pytest.raises(NotFoundError, match="working directory"):
        await own.run(["true"], cwd="/no/such")
    for user, match in (("somebody", "run as the user"), ("root", "No command runs as root"), ("0", "No command")):
        with pytest.raises(DeniedError, match=match) as denied:
            await own.run(["true"], user=user)
        assert denied.value.rule == "task-users"
        with pytest.raises(DeniedError, match=match):
            async with own.shell(user=user):
                pass
    with pytest.raises(ArgumentError, match="without a group"):
        await own.run(["true"], user="1000:0")
    with pytest.raises(ArgumentError, match="NUL"):
        await own.run(["a\0b"])
    with pytest.raises(ArgumentError, match="object of texts"):
        await own.run(["true"], env={"A": 1})  # type: ignore[dict-item]
    with pytest.raises(ArgumentError, match="above 0"):
        await own.run(["true"], timeout=0)
    with pytest.raises(ArgumentError, match="1 to 128"):
        await Task(own._wire, "").run(["true"])


async def test_files_are_read_written_and_listed(own: Task) -> None:
    await own.write_bytes("a/b.bin", b"\0\xff" * 500)
    assert await own.read_bytes("/workspace/a/b.bin") == b"\0\xff" * 500
    await own.run("ln -s a link")
    assert [(entry.name, entry.kind) for entry in await own.list()] == [("a", "folder"), ("link", "link")]
    with pytest.raises(NotFoundError):
        await own.read_bytes("none")
    with pytest.raises(FolderError):
        await own.read_bytes("a")


async def test_tasks_are_listed_until_they_are_closed(cells: cell.Cell) -> None:
    made = await cells.open("listed")
    await made.run(["true"])
    assert ("listed", ("terminal",)) in [(found.id, found.profiles) for found in await cells.tasks()]
    await made.close()
    assert "listed" not in [found.id for found in await cells.tasks()]


async def test_the_policy_judges_what_programs_run(gateway: GatewayFactory, tmp_path: Path) -> None:
    rule = '[[policy.rules]]\nname = "no-rm"\ntool = "terminal"\ncommand = "rm -rf"\neffect = "deny"\nreason = "No."'
    async with served(gateway, tmp_path / "state", LOCAL_ENGINE + rule) as client:
        made = await client.open("t")
        for command in ("rm -rf x", ["rm", "-rf", "x"]):
            with pytest.raises(DeniedError, match=r"No\.") as denied:
                await made.run(command)
            assert denied.value.rule == "no-rm"


async def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    config = tmp_path / "taskcell.toml"
    config.write_text("nonsense = 1\n")
    with pytest.raises(CellError, match="nonsense"):
        async with connect(config=config):
            pass


def test_the_blocking_client_does_the_same_at_a_server_of_its_own(tmp_path: Path) -> None:
    config = tmp_path / "taskcell.toml"
    config.write_text(LOCAL_ENGINE)
    with blocking.connect(config=config) as opened:
        made = opened.open("t")
        assert made.run(["cat"], stdin=b"\xff").stdout == b"\xff"
        with made.start("read -r word; echo $word", stdin=None) as started:
            started.write(b"word\n")
            assert [piece.data for piece in started] == [b"word\n"]
            assert started.wait().exit_code == 0
        with pytest.raises(NotFoundError):
            made.read_bytes("none")
        assert [found.id for found in opened.tasks()] == ["t"]


@pytest.mark.parametrize(
    ("own_class", "other"),
    [
        (task.Task, blocking.Task),
        (cell.Cell, blocking.Cell),
        (process.RunningCommand, blocking.RunningCommand),
        (shell.Shell, blocking.Shell),
    ],
)
def test_the_blocking_client_has_every_method(own_class: type, other: type) -> None:
    source = ast.parse(inspect.getsource(own_class).lstrip())
    names = {node.name for node in ast.walk(source) if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef)}
    public = {name for name in names if not name.startswith("_")} - {"begin", "feed", "leave"}
    assert public <= set(dir(other))
