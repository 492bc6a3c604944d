"""A channel whose streams break at any byte: every command runs once, and says what it would have said without that."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import anyio.abc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cut_streams import Connect, Cutter, DeafStream, Piecewise
from supervisor_driver import PATH, TOKEN, Supervisor
from taskcell.errors import EngineUnavailable, SandboxLost
from taskcell.process.process import Process
from taskcell.supervisor import link, protocol, requests
from taskcell.supervisor.channel import Channel
from taskcell.supervisor.link import FIRST_STREAMS
from taskcell.supervisor.protocol import SpawnFlag, Stream

pytestmark = pytest.mark.anyio

#: Seconds for a whole example on a busy machine.
LIMIT = 120.0
#: Bytes of the first WELCOME, before which a stream that breaks means that there is no sandbox.
FIRST = 120
OUTPUT_CHARS = 4_000


async def never() -> bool:
    return False


@asynccontextmanager
async def connected(path: Path) -> AsyncIterator[anyio.abc.ByteStream]:
    try:
        stream = await anyio.connect_unix(path)
    except OSError as error:
        raise SandboxLost("It does not listen any more.") from error
    async with stream:
        yield stream


@asynccontextmanager
async def channel_to(supervisor: Supervisor, cuts: Iterator[int], ttl: float = 300.0) -> AsyncIterator[Channel]:
    """A channel that is connected by streams of which the first ones break."""
    channel = Channel(TOKEN, ttl)
    cutter = Cutter(lambda: connected(supervisor.path), cuts)
    async with anyio.create_task_group() as group:
        await group.start(channel.run, cutter, never)
        yield channel
        group.cancel_scope.cancel()


def shell(line: str, flags: SpawnFlag = SpawnFlag.STDIN) -> requests.Spawn:
    return requests.Spawn([b"bash", b"-c", line.encode()], {b"PATH": PATH}, b"/", flags=flags, credit=1 << 30)


async def run(channel: Channel, line: str, given: bytes = b"") -> Process:
    process = Process(channel, OUTPUT_CHARS)
    await process.start(lambda number: shell(line), given)
    await process.finished()
    return process


async def kept(process: Process, stream: Stream = Stream.STDOUT) -> bytes:
    """All that the supervisor keeps of a stream."""
    data = b""
    while piece := (await process.read(stream, len(data), protocol.READ_MAX)).data:
        data += piece
    return data


async def work(channel: Channel, folder: Path) -> None:
    """Commands of every kind, at once; each one says in a file that it ran."""

    async def prints(name: str) -> None:
        process = await run(channel, f"echo {name} >> {folder}/ran; seq 30000; seq 2000 >&2; exit 7")
        assert process.exit is not None
        assert process.exit.exit_code == 7
        wanted = "".join(f"{number}\n" for number in range(1, 30001)).encode()
        assert process.stdout.held == wanted
        assert await kept(process) == wanted

    async def reads(name: str) -> None:
        given = hashlib.sha256(name.encode()).digest() * 12_000
        process = await run(channel, f"echo {name} >> {folder}/ran; sha256sum | cut -c -64", given)
        assert process.stdout.held.decode() == hashlib.sha256(given).hexdigest() + "\n"

    async def is_killed(name: str) -> None:
        process = Process(channel, OUTPUT_CHARS)
        await process.start(lambda number: shell(f"echo {name} >> {folder}/ran; echo up; setsid sleep 300 & sleep 300"))
        await process.news((0, 0))
        assert await process.kill(0.0) == 0

    async def is_written_to(name: str) -> None:
        process = Process(channel, OUTPUT_CHARS)
        await process.start(lambda number: shell(f"echo {name} >> {folder}/ran; cat"), b"", more=True)
        lines = [f"line {number}\n".encode() for number in range(30)]
        for line in lines:
            assert await process.input.write(line, math.inf) == len(line)
        assert await process.input.close(math.inf, is_terminal=False)
        await process.finished()
        assert process.stdout.held == b"".join(lines)

    async with anyio.create_task_group() as calls:
        for number in range(2):
            for kind in (prints, reads, is_killed, is_written_to):
                calls.start_soon(kind, f"{kind.__name__}-{number}")


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(cuts=st.lists(st.one_of(st.integers(0, 4_000), st.integers(0, 400_000)), max_size=12))
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_however_the_streams_break_every_command_runs_once_and_no_byte_is_lost_or_doubled(
    binary: Path, tmp_path_factory: pytest.TempPathFactory, anyio_backend: str, cuts: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    supervisor = Supervisor(binary, folder / "run")
    try:
        supervisor.connect().close()
        first = [FIRST + cuts[0], *cuts[1:]] if cuts else []
        with anyio.fail_after(LIMIT):
            async with channel_to(supervisor, iter(first)) as channel:
                await work(channel, folder)
                assert channel.alive
        names = (folder / "ran").read_text().split()
        assert sorted(names) == sorted(set(names))
        assert len(names) == 8
    finally:
        supervisor.stop()


async def test_a_stream_that_says_nothing_is_replaced_by_another_one(binary: Path, tmp_path: Path) -> None:
    """What carries a stream may swallow every byte and never end it."""
    supervisor = Supervisor(binary, tmp_path / "run")
    supervisor.connect().close()
    try:
        with anyio.fail_after(LIMIT):
            async with channel_to(supervisor, iter(())) as channel:
                process = Process(channel, OUTPUT_CHARS)
                await process.start(lambda number: shell("echo up; read word; echo $word"), b"", more=True)
                await process.news((0, 0))
                channel.renew()
                await process.input.write(b"word\n", math.inf)
                await process.finished()
                assert process.stdout.held == b"up\nword\n"
    finally:
        supervisor.stop()


async def test_a_supervisor_that_has_ended_is_lost_and_says_so(binary: Path, tmp_path: Path) -> None:
    supervisor = Supervisor(binary, tmp_path / "run")
    supervisor.connect().close()

    async def is_gone() -> bool:
        return supervisor.child.poll() is not None

    channel = Channel(TOKEN, 300.0)
    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as group:
            await group.start(channel.run, lambda: connected(supervisor.path), is_gone)
            process = Process(channel, OUTPUT_CHARS)
            await process.start(lambda number: shell("sleep 600"))
            await process.running()
            supervisor.child.kill()
            with pytest.raises(SandboxLost, match="its container has ended"):
                await process.finished()


async def test_a_restarted_supervisor_is_another_sandbox(binary: Path, tmp_path: Path) -> None:
    first = Supervisor(binary, tmp_path / "run")
    first.connect().close()
    channel = Channel(TOKEN, 300.0)
    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as group:
            await group.start(channel.run, lambda: connected(first.path), never)
            process = Process(channel, OUTPUT_CHARS)
            await process.start(lambda number: shell("sleep 600"))
            await process.running()
            first.child.kill()
            first.child.wait()
            second = Supervisor(binary, tmp_path / "run")
            try:
                with pytest.raises(SandboxLost, match="was restarted"):
                    await process.finished()
            finally:
                second.stop()
            group.cancel_scope.cancel()


async def test_a_channel_that_is_quiet_is_kept_by_pings(binary: Path, tmp_path: Path) -> None:
    supervisor = Supervisor(binary, tmp_path / "run")
    supervisor.connect().close()
    try:
        async with channel_to(supervisor, iter(()), ttl=5.0) as channel:
            await anyio.sleep(6.0)  # longer than the supervisor lives without a server
            assert (await run(channel, "echo works")).stdout.held == b"works\n"
    finally:
        supervisor.stop()


@asynccontextmanager
async def channel_by(connect: Connect, ttl: float) -> AsyncIterator[Channel]:
    channel = Channel(TOKEN, ttl)
    async with anyio.create_task_group() as group:
        await group.start(channel.run, connect, never)
        yield channel
        group.cancel_scope.cancel()


@pytest.fixture
def supervisor(binary: Path, tmp_path: Path) -> Iterator[Supervisor]:
    running = Supervisor(binary, tmp_path / "run")
    yield running
    running.stop()


async def test_a_stream_that_loses_what_is_sent_is_replaced_though_output_still_comes(supervisor: Supervisor) -> None:
    """Else the supervisor hears nothing, and ends a command that its server sees printing."""
    opened = 0

    @asynccontextmanager
    async def connect() -> AsyncIterator[anyio.abc.ByteStream]:
        nonlocal opened
        opened += 1
        is_first = opened == 1
        async with connected(supervisor.path) as stream:
            yield DeafStream(stream, lambda: is_first and printed.is_set())

    printed = anyio.Event()
    with anyio.fail_after(LIMIT):
        async with channel_by(connect, ttl=6.0) as channel:
            process = Process(channel, OUTPUT_CHARS)
            line = "until read -t 0.2 word; do echo goes on; done; echo $word"
            await process.start(lambda number: shell(line), b"", more=True)
            await process.news((0, 0))
            printed.set()
            await process.input.write(b"heard\n", math.inf)
            await process.finished()
            assert process.exit is not None
            assert process.exit.exit_code == 0
            assert process.stdout.held.endswith(b"goes on\nheard\n")
    assert opened > 1


class Away:
    """An engine that stops to answer, and answers again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.is_away = False
        self.stream: anyio.abc.ByteStream | None = None

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[anyio.abc.ByteStream]:
        if self.is_away:
            raise EngineUnavailable("The engine does not answer.")
        async with connected(self._path) as self.stream:
            yield self.stream

    async def is_gone(self) -> bool | None:
        return None if self.is_away else False

    async def go(self) -> None:
        assert self.stream is not None
        self.is_away = True
        await self.stream.aclose()


async def test_where_the_engine_is_away_a_session_waits_for_it_as_long_as_the_supervisor_lives(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "PATIENCE", 0.5)
    monkeypatch.setattr(link, "LONGEST_PAUSE", 0.1)
    engine, channel, go_on = Away(supervisor.path), Channel(TOKEN, 300), tmp_path / "go-on"
    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as group:
            await group.start(channel.run, engine, engine.is_gone)
            process = Process(channel, OUTPUT_CHARS)
            await process.start(lambda number: shell(f"until [ -e {go_on} ]; do sleep 0.05; done; echo done"))
            await process.running()
            await engine.go()
            await channel.back(or_lost=False)  # nobody is to wait any more, and nothing is given up
            assert (channel.is_away, channel.alive) == (True, True)
            engine.is_away = False
            go_on.touch()
            await process.finished()
            assert process.stdout.held == b"done\n"
            await engine.go()
            lost = anyio.Event()
            channel.when_lost(lost.set)
            await channel.back(or_lost=True)  # a call that must be answered gives it up
            assert lost.is_set()


@pytest.mark.parametrize(("is_blind", "ttl"), [(False, 300), (True, 1)])
async def test_a_session_is_over_where_the_engine_answers_or_the_supervisor_has_ended(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, is_blind: bool, ttl: float
) -> None:
    monkeypatch.setattr(link, "PATIENCE", 0.5)
    monkeypatch.setattr(link, "LONGEST_PAUSE", 0.1)
    engine, channel, lost = Away(supervisor.path), Channel(TOKEN, ttl), anyio.Event()
    channel.when_lost(lost.set)
    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as group:
            await group.start(channel.run, engine, engine.is_gone if is_blind else never)
            await engine.go()
            await lost.wait()
            assert "could not be reached" in str(channel.lost_reason)


async def test_streams_that_break_before_the_first_welcome_are_tried_again(supervisor: Supervisor) -> None:
    """Nothing is there yet that could be lost, and a network says nothing about the sandbox."""
    cutter = Cutter(lambda: connected(supervisor.path), iter((10, 80)))
    with anyio.fail_after(LIMIT):
        async with channel_by(cutter, ttl=300.0) as channel:
            assert (await run(channel, "echo works")).stdout.held == b"works\n"
    assert cutter.opened == 3


async def test_a_network_that_never_lets_a_first_stream_through_is_not_tried_for_ever(supervisor: Supervisor) -> None:
    cutter = Cutter(lambda: connected(supervisor.path), itertools.repeat(10))
    with anyio.fail_after(LIMIT), pytest.raises(SandboxLost, match="did not start: its channel ended"):
        await Channel(TOKEN, 300.0).run(cutter, never)
    assert cutter.opened == FIRST_STREAMS


async def test_a_hello_that_is_held_up_costs_another_stream_and_not_the_sandbox(supervisor: Supervisor) -> None:
    """The supervisor waits five seconds for it; what carries a stream can stand still for longer."""
    opened = 0

    class Held(DeafStream):
        async def send(self, item: bytes) -> None:
            with suppress(anyio.EndOfStream):
                await self._stream.receive()
            await self._stream.send(item)

    @asynccontextmanager
    async def connect() -> AsyncIterator[anyio.abc.ByteStream]:
        nonlocal opened
        opened += 1
        async with connected(supervisor.path) as stream:
            yield Held(stream, lambda: False) if opened == 2 else stream

    with anyio.fail_after(LIMIT):
        async with channel_by(connect, ttl=300.0) as channel:
            process = Process(channel, OUTPUT_CHARS)
            await process.start(lambda number: shell("read word; echo $word"), b"", more=True)
            channel.renew()
            await process.input.write(b"word\n", math.inf)
            await process.finished()
            assert process.stdout.held == b"word\n"
    assert opened == 3


async def test_a_stream_that_brings_single_bytes_brings_them_all(supervisor: Supervisor) -> None:
    @asynccontextmanager
    async def connect() -> AsyncIterator[anyio.abc.ByteStream]:
        async with connected(supervisor.path) as stream:
            yield Piecewise(stream)

    with anyio.fail_after(LIMIT):
        async with channel_by(connect, ttl=300.0) as channel:
            process = await run(channel, "cat; exit 3", b"given\n" * 300)
            assert process.exit is not None
            assert (process.exit.exit_code, process.stdout.held) == (3, b"given\n" * 300)


#: What engines write into the stream when an exec fails: as it was seen, with a container that is just ending too.
COMPLAINTS = (
    b"OCI runtime exec failed: exec failed: unable to start container process: exec: no such file: unknown\r\n",
    b"cannot exec in a deleted state: unknown\r\n",
    b"task b3e0dca2a47e5905b31cf01fe3fa28ccc3e0a17e3c7edc8e5e49baecc4edd54d not found: not found\r\n",
    b"crun: executable file not found",
)


class Says(DeafStream):
    """Says something in pieces, and ends."""

    def __init__(self, stream: anyio.abc.ByteStream, said: bytes, size: int) -> None:
        super().__init__(stream, lambda: True)
        self._left, self._size = said, size

    async def receive(self, max_bytes: int = 65536) -> bytes:
        if not self._left:
            raise anyio.EndOfStream
        data, self._left = self._left[: self._size], self._left[self._size :]
        return data


@pytest.mark.parametrize("size", [1, 7, 4096])
@pytest.mark.parametrize("said", COMPLAINTS)
async def test_an_engine_that_cannot_start_the_bridge_just_now_is_asked_again(
    supervisor: Supervisor, said: bytes, size: int
) -> None:
    """What it says comes in the stream, in pieces of any size, and is not an answer of the supervisor."""
    opened = 0

    @asynccontextmanager
    async def connect() -> AsyncIterator[anyio.abc.ByteStream]:
        nonlocal opened
        opened += 1
        async with connected(supervisor.path) as stream:
            yield Says(stream, said, size) if opened == 2 else stream

    with anyio.fail_after(LIMIT):
        async with channel_by(connect, ttl=300.0) as channel:
            channel.renew()
            assert (await run(channel, "echo works")).stdout.held == b"works\n"
    assert opened == 3


@pytest.mark.parametrize("size", [1, 4096])
@pytest.mark.parametrize("said", COMPLAINTS)
async def test_an_engine_that_cannot_start_the_bridge_at_all_is_quoted_whole(
    supervisor: Supervisor, said: bytes, size: int
) -> None:
    @asynccontextmanager
    async def connect() -> AsyncIterator[anyio.abc.ByteStream]:
        async with connected(supervisor.path) as stream:
            yield Says(stream, said, size)

    with anyio.fail_after(LIMIT), pytest.raises(SandboxLost, match=re.escape(said.decode().strip())):
        await Channel(TOKEN, 300.0).run(connect, never)
