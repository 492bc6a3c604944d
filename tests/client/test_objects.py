"""The client for programs: what its objects and arguments are in a program that copies, prints and mixes them."""

from __future__ import annotations

import copy
import io
import pickle
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from client_serving import served
from gateways import GatewayFactory
from observe import HOST_TIMEOUT
from taskcell.client.failures import DeniedError, LostError
from taskcell.client.own_server import pass_log_on
from taskcell.client.process import CommandFailed, Done
from taskcell.client.shell import ShellEndedError
from taskcell.client.wire import ServerClient

ENDED = Done("exited", 3, stdout=b"out", stderr=b"why")


@pytest.mark.parametrize(
    "error", [DeniedError("No.", {"rule": "r"}), CommandFailed(ENDED), ShellEndedError(ENDED)], ids=type
)
@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_errors_go_to_other_processes_whole(error: Exception, copied: Any) -> None:
    found = copied(error)
    assert (type(found), str(found), vars(found)) == (type(error), str(error), vars(error))


@pytest.mark.parametrize(
    "error", [pytest.param(DeniedError("x"), id="no fields"), pytest.param(CommandFailed(ENDED), id="failed")]
)
def test_an_error_keeps_its_cause_and_notes(error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        raise error from ValueError("the cause")
    assert isinstance(raised.value.__cause__, ValueError)


async def pieces() -> AsyncIterator[bytes]:
    yield b"one\n"
    yield b"two\n"


def generated() -> Iterator[bytes]:
    yield b"one\n"
    yield b"two\n"


@pytest.mark.anyio
@pytest.mark.parametrize(
    "stdin",
    [
        bytearray(b"one\ntwo\n"),
        memoryview(b"one\ntwo\n"),
        [b"one\n", bytearray(b"two\n")],
        io.BytesIO(b"one\ntwo\n"),
        generated,
        pieces,
    ],
    ids=["bytearray", "memoryview", "list", "file", "generator", "asynchronous generator"],
)
async def test_input_is_whatever_gives_bytes(gateway: GatewayFactory, tmp_path: Path, stdin: Any) -> None:
    async with served(gateway, tmp_path / "state") as cell:
        given = stdin() if callable(stdin) else stdin
        assert (await cell.task("t").run(["cat"], stdin=given)).stdout == b"one\ntwo\n"


class Lines(io.BytesIO):
    """A file whose lines nobody wants one by one."""

    def __next__(self) -> bytes:
        raise AssertionError("a line")


@pytest.mark.anyio
async def test_a_file_is_sent_in_large_pieces_and_not_by_lines(gateway: GatewayFactory, tmp_path: Path) -> None:
    lines = b"one\n" * 100_000
    async with served(gateway, tmp_path / "state") as cell:
        assert (await cell.task("t").run(["cat"], stdin=Lines(lines))).stdout == lines


@pytest.mark.anyio
async def test_a_command_that_ends_does_not_wait_for_input_that_never_comes(
    gateway: GatewayFactory, tmp_path: Path
) -> None:
    let_go, waited = threading.Event(), []

    def never() -> Iterator[bytes]:
        yield b"one\n"
        waited.append(let_go.wait(HOST_TIMEOUT))

    async with served(gateway, tmp_path / "state") as cell:
        try:
            assert (await cell.task("t").run("echo done", stdin=never())).stdout == b"done\n"
            assert waited == []
        finally:
            let_go.set()


@pytest.mark.anyio
async def test_what_is_not_bytes_is_refused_before_anything_runs(gateway: GatewayFactory, tmp_path: Path) -> None:
    async with served(gateway, tmp_path / "state") as cell:
        task = cell.task("t")
        for stdin in ("text", 3):
            with pytest.raises(TypeError, match=r"stdin is bytes, or an iterable of bytes, not (str|int)"):
                await task.run("touch ran", stdin=stdin)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="bytes are needed, not str; encode it"):
            await task.write_bytes("ran", "text")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="bytes are needed, not str"):
            await task.run(["cat"], stdin=["text"])  # type: ignore[list-item]
        assert (await task.run("ls")).stdout == b""
        await task.write_bytes("held", bytearray(b"\xff"))
        assert await task.read_bytes("held") == b"\xff"


@pytest.mark.anyio
async def test_words_and_folders_are_paths_and_bytes_too(gateway: GatewayFactory, tmp_path: Path) -> None:
    async with served(gateway, tmp_path / "state") as cell:
        done = await cell.task("t").run(["printf", "%s|", Path("a/b"), b"\xff", "c"], cwd=Path("/"))
        assert done.stdout == b"a/b|\xff|c|"


@pytest.mark.anyio
async def test_the_end_of_a_command_stays_the_same(gateway: GatewayFactory, tmp_path: Path) -> None:
    async with served(gateway, tmp_path / "state") as cell:
        async with cell.task("t").start("cat; echo err >&2; exit 3", stdin=None) as command:
            assert await command.write(memoryview(b"out")) == 3
            await command.close_stdin()
            done = await command.wait()
            assert (done.stdout, done.stderr, done.exit_code) == (b"out", b"err\n", 3)
            assert await command.wait() is done
            assert await command.write(b"nobody reads it") == 0
        assert await command.wait() is done
        async with cell.task("t").start(["sleep", "600"]) as left:
            pass
        with pytest.raises(LostError, match="killed when its block was left"):
            await left.wait()


@pytest.mark.anyio
async def test_objects_show_what_they_are(gateway: GatewayFactory, tmp_path: Path) -> None:
    async with served(gateway, tmp_path / "state") as cell:
        task = cell.task("t")
        assert repr(task) == "<Task 't'>"
        assert repr(cell).startswith("<Cell at ")
        async with task.start("true") as command, task.shell("s") as shell:
            assert repr(command) == f"<RunningCommand {command.id!r} of task 't'>"
            assert repr(shell) == "<Shell 's' of task 't'>"


def test_no_secret_is_shown() -> None:
    secret = "of nobody else"
    for url in ("http://127.0.0.1:8765", f"http://user:{secret}@127.0.0.1:8765"):
        wire = ServerClient(url=url, token=secret)
        assert wire.address.endswith("127.0.0.1:8765")
        assert secret not in wire.address + repr(wire)


@pytest.mark.parametrize("stream", [None, io.StringIO()], ids=["a daemon", "a notebook"])
def test_a_servers_log_ends_nothing_where_there_is_no_standard_error(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO | None
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    pass_log_on(b"a line\xff\n")
    assert stream is None or stream.getvalue() == "a line\ufffd\n"
