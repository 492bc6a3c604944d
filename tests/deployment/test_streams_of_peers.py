"""Commands of programs, whose output is streamed, when the server that has them ends or dies."""

from __future__ import annotations

import hashlib
import math
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.abc
import httpx2
import pytest

from http_serving import PATIENCE
from observe import alive, eventually, marker
from peers import Peers, PeerServer
from taskcell.client.failures import LostError
from taskcell.client.process import Done, RunningCommand
from taskcell.client.task import Task
from taskcell.client.wire import ServerClient, frames

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("three_servers")]
#: Writes numbers, waits for a file, and writes many more than any buffer on the way holds.
LINES = "seq 1 5000; echo err >&2; until [ -e go ]; do sleep 0.05; done; seq 5001 1500000; exit 7"


class Behind(ServerClient):
    """A client of several servers, as behind a Service: `turn` has its next requests come to another one."""

    def turn(self, server: PeerServer) -> None:
        self._url = server.url
        self._clients.clear()


@asynccontextmanager
async def client(server: PeerServer, linger: float = PATIENCE) -> AsyncIterator[Behind]:
    async with Behind(url=server.url, token=server.token, linger=linger) as wire:
        yield wire


async def read_to(command: RunningCommand, size: int) -> bytes:
    """The first bytes of its standard output."""
    had = bytearray()
    async for piece in command:
        had += piece.data if piece.stream == "stdout" else b""
        if len(had) >= size:
            return bytes(had)
    raise AssertionError(bytes(had))


def check(first: bytes, done: Done) -> None:
    every = "".join(f"{number}\n" for number in range(1, 1500001)).encode()
    whole = first + done.stdout
    assert (len(whole), hashlib.sha256(whole).digest()) == (len(every), hashlib.sha256(every).digest())
    assert (done.status, done.exit_code) == ("exited", 7)


async def test_a_command_goes_on_when_the_server_that_has_it_dies(fleet: Peers) -> None:
    dying = fleet.lead("t")
    async with client(dying) as wire, Task(wire, "t").start(LINES) as command:
        first = await read_to(command, 20_000)
        await dying.deployment.write(*dying.gateway.pool._upkeep.own())
        heir = fleet.other(dying)
        wire.turn(heir)
        await fleet.cut_off(dying)
        dying.stop.cancel()
        await heir.run("touch go")
        check(first, await command.wait())


@pytest.mark.parametrize("through", ["the server that has the task", "another one"])
async def test_a_command_goes_on_when_the_server_that_has_it_ends(fleet: Peers, through: str) -> None:
    ending = fleet.lead("t")
    asked = ending if through == "the server that has the task" else fleet.other(ending)
    heir = fleet.other(ending)
    async with client(asked) as wire, Task(wire, "t").start(LINES) as command:
        first = await read_to(command, 20_000)
        async with anyio.create_task_group() as end:
            await begin_to_end(ending, end)
            wire.turn(asked if asked is not ending else heir)
            await heir.run("touch go")
            check(first, await command.wait())
            assert "t" not in ending.tasks or ending.gateway.pool.leaving.is_done
            end.cancel_scope.cancel()


async def begin_to_end(server: PeerServer, calls: anyio.abc.TaskGroup) -> None:
    """As at SIGTERM: it hands on what still comes, as long as the group runs."""
    await server.deployment.begin_to_leave()
    assert server.gateway.pool.leaving.begin()
    calls.start_soon(server.hand_over, math.inf)


async def test_a_command_goes_on_when_the_server_that_handed_it_on_goes(fleet: Peers) -> None:
    lead = fleet.lead("t")
    asked = fleet.other(lead)
    async with client(asked) as wire, Task(wire, "t").start(LINES) as command:
        first = await read_to(command, 20_000)
        wire.turn(fleet.other(lead, asked))
        asked.stop.cancel()
        await lead.run("touch go")
        check(first, await command.wait())


async def test_a_command_that_its_block_leaves_is_killed_at_once_though_it_lingers(fleet: Peers) -> None:
    mark, asked = marker(), fleet.other(fleet.lead("t"))
    async with client(asked) as wire:
        async with Task(wire, "t").start(f"echo on; sleep {mark}") as command:
            assert await read_to(command, 3) == b"on\n"
        assert not alive(mark)


@pytest.mark.parametrize("at", ["the same server", "the heir"])
async def test_a_command_whose_client_does_not_come_back_is_killed_once_it_has_lingered(fleet: Peers, at: str) -> None:
    mark, lead = marker(), fleet.lead("t")
    about = {"line": f"echo on; sleep {mark}", "linger": 0.5}
    async with client(lead) as wire:
        answer = await begun(wire, about)
        await lead.deployment.write(*lead.gateway.pool._upkeep.own())
        if at == "the heir":
            await fleet.cut_off(lead)
            assert (await fleet.other(lead).run("echo mine"))["stdout"] == "mine\n"
        else:
            await answer.aclose()
        assert await anyio.to_thread.run_sync(lambda: eventually(lambda: not alive(mark)))


async def begun(wire: Behind, about: dict[str, object]) -> httpx2.Response:
    """The answer to a command whose first output has come."""
    http = await wire._client(None)
    answer = await http.send(http.build_request("POST", "/tasks/t/processes", json=about), stream=True)
    read = frames(answer)
    assert [kind async for kind, _ in limited(read, 2)] == [0, 1]
    return answer


async def limited(pieces: AsyncIterator[tuple[int, bytes]], most: int) -> AsyncIterator[tuple[int, bytes]]:
    for _ in range(most):
        yield await anext(pieces)


async def test_a_command_that_does_not_linger_ends_with_the_server_that_died(fleet: Peers) -> None:
    mark, lead = marker(), fleet.lead("t")
    async with client(lead) as wire:
        await begun(wire, {"line": f"echo on; sleep {mark}"})
        await lead.deployment.write(*lead.gateway.pool._upkeep.own())
        await fleet.cut_off(lead)
        await fleet.other(lead).run("true")
        assert await anyio.to_thread.run_sync(lambda: eventually(lambda: not alive(mark)))


async def test_output_that_is_not_kept_any_more_is_an_error_and_no_end(fleet: Peers) -> None:
    lead = fleet.lead("t")
    async with client(lead) as wire, Task(wire, "t").start(["head", "-c", "12000000", "/dev/zero"]) as command:
        await read_to(command, 10_000_000)
        with pytest.raises(LostError, match="not kept any more"):
            await wire.json("GET", f"/tasks/t/processes/{command.id}?stdout=5", task="t")
        assert len((await command.wait()).stdout) + command._had[1] >= 12_000_000


async def test_a_client_that_comes_back_is_the_only_reader_and_has_every_byte_once(fleet: Peers) -> None:
    """The server may not know yet that the first connection is gone."""
    lead = fleet.lead("t")
    async with client(lead) as wire, client(fleet.other(lead)) as second, Task(wire, "t").start(LINES) as command:
        first = await read_to(command, 20_000)
        other = RunningCommand(second, "t", nothing(), PATIENCE)
        other.id, other._had = command.id, dict(command._had)
        command._linger = 0
        await other._take_up(LostError("the connection broke"))
        with pytest.raises(LostError, match="goes on"):
            await command.wait()
        await lead.run("touch go")
        check(first, await other.wait())
        await other.later.aclose()


async def nothing() -> AsyncGenerator[tuple[int, bytes], None]:
    return
    yield


async def test_how_much_input_came_is_unknown_to_the_heir_which_says_so(fleet: Peers) -> None:
    lead = fleet.lead("t")
    heir = fleet.other(lead)
    async with client(lead) as wire, Task(wire, "t").start("echo on; cat", stdin=None) as command:
        assert await read_to(command, 3) == b"on\n"
        await command.write(b"hers\n")
        assert await read_to(command, 5) == b"hers\n"
        await lead.deployment.write(*lead.gateway.pool._upkeep.own())
        wire.turn(heir)
        await fleet.cut_off(lead)
        with pytest.raises(LostError, match="how much of its input came is not known"):
            await command.write(b"more\n")
