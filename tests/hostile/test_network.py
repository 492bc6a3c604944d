"""Ten thousand connections: out of a sandbox, into one, and at a person's forwarded port. Everybody else goes on."""

from __future__ import annotations

import random
import resource
import socket
import statistics
import struct
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import anyio
import anyio.abc
import pytest
from anyio.abc import SocketAttribute

from figures import Figure
from gateways import GatewayFactory
from proxied import Names, serving
from served_door import served_door
from supervisor_driver import PATIENCE
from taskcell.byte_streams import MAX_TASK_CONNECTIONS
from taskcell.cli.forwarding import Forwarding, listen_locally
from taskcell.cli.port_servers import LocalServer
from taskcell.egress.egress import MIN_HOLD
from taskcell.gateway.gateway import Gateway
from taskcell.model import ProcessResult, TaskKey, ToolCall

pytestmark = [pytest.mark.anyio, pytest.mark.engine, pytest.mark.hostile]

CONNECTIONS, PLACES, CALLS = 10_000, 16, 20
#: Connections of a person at once that are carried to their end.
AT_ONCE = 100
RESETS = struct.pack("ii", 1, 0)
#: Seconds for ten thousand connections through a sandbox, each of which takes a few milliseconds.
ALL_PATIENCE = 600.0
#: Opens connections to its proxy without end, 800 at once: silent ones, half a head, garbage, a refused host, resets.
#: It says when there have been ten thousand, and goes on at a thousand a second.
FLOOD = r"""
import collections, os, socket, struct, time
port = int(os.environ["https_proxy"].rpartition(":")[2])
kinds = (b"", b"CONNECT files.test:443 HTTP/1.1\r\nHost", b"\x05\xff" + bytes(255), None,
         b"GET http://10.0.0.5/ HTTP/1.1\r\nHost: h\r\n\r\n")
held, number = collections.deque(), 0
while True:
    one, what = socket.socket(), kinds[number % len(kinds)]
    one.setblocking(False)
    one.connect_ex(("127.0.0.1", port))
    if what is None:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.close()
    else:
        try: one.send(what)
        except OSError: pass
        held.append(one)
    if len(held) > 800: held.popleft().close()
    number += 1
    if number == COUNT: print("flooded", flush=True)
    if number > COUNT: time.sleep(0.001)
"""
#: Accepts connections, and does with each what its first byte asks for: echo, reset, flood, or hold it and never read.
ACCEPT = r"""
import collections, socket, struct, threading
held = collections.deque()
def serve(one):
    try:
        what = one.recv(1)
        if what == b"e": one.sendall(what + one.recv(1)); one.close()
        elif what == b"r": one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)); one.close()
        elif what == b"f":
            while True: one.send(bytes(65536))
        else:
            held.append(one)
            if len(held) > 300: held.popleft().close()
    except OSError: pass
listening = socket.create_server(("127.0.0.1", 8000), backlog=64)
print("listening", flush=True)
while True:
    one, _ = listening.accept()
    threading.Thread(target=serve, args=(one,), daemon=True).start()
"""


async def run(gw: Gateway, command: str, task: str = "t", **more: object) -> ProcessResult:
    report = await gw.call(ToolCall("local", "terminal", {"command": command, "task_id": task, **more}))
    assert isinstance(report, ProcessResult)
    return report


async def begin(gw: Gateway, program: str, says: str) -> None:
    """Run a program of Python in the background, until it has printed a word."""
    line = 'exec python3 -c "$PROGRAM"'
    begun = await run(gw, line, env={"PROGRAM": program.replace("COUNT", str(CONNECTIONS))}, background=True)
    wait = {"action": "wait", "process_id": begun.process_id, "until": says, "task_id": "t", "wait": PATIENCE}
    with anyio.fail_after(2 * PATIENCE):
        assert says in str(await gw.call(ToolCall("local", "process", wait)))


async def calls(gw: Gateway, task: str) -> float:
    """Make some calls, all of which must be answered right; return the milliseconds of the middle one."""
    spent = []
    for number in range(CALLS):
        began = time.monotonic()
        with anyio.fail_after(PATIENCE):
            assert (await run(gw, f"echo {number}", task)).stdout == f"{number}\n"
        spent.append(time.monotonic() - began)
    return statistics.median(spent) * 1000


async def test_ten_thousand_connections_out_of_a_sandbox_take_no_more_than_its_places(
    gateway: GatewayFactory, figure: Figure
) -> None:
    toml = (
        "[terminal]\negress = ['files.test']\n[policy]\nallowed_egress = ['files.test']\n"
        f"[egress]\nmax_connections = {PLACES}\n"
    )
    async with gateway(toml=toml, resolve=Names()) as gw:
        before = await calls(gw, "other")
        await run(gw, "true")
        began = time.monotonic()
        await begin(gw, FLOOD, "flooded")
        (slot,) = await gw.pool.of_task(TaskKey("local", "t"))
        assert slot.sandbox is not None
        while_flooded = await calls(gw, "other")
        own = await calls(gw, "t")
        assert len(slot.sandbox.channel.tunnels) <= PLACES
        served = gw.egress.totals.refused + gw.egress.totals.connected if gw.egress else 0
        most = PLACES * ((time.monotonic() - began) / MIN_HOLD + 1)
        assert 0 < served <= most, "a place was free again before its time"
        figure(f"a call of another task {while_flooded:.1f} ms, before {before:.1f} ms; of the same task {own:.1f} ms")


@asynccontextmanager
async def forwarded(gateway: GatewayFactory, state: Path, engine: str, port: int) -> AsyncIterator[tuple[Gateway, int]]:
    """A port of the task `t`, and the one of this machine that leads there."""
    toml = "manifests = []\n"
    async with served_door(gateway, state, toml, engine=engine, within=2 * ALL_PATIENCE) as (gw, _, _):
        with listen_locally(0) as listening:
            async with anyio.create_task_group() as group:
                forwarding = Forwarding(LocalServer(state), "t", port, lambda _: None)
                group.start_soon(forwarding.serve, listening)
                yield gw, listening[0].getsockname()[1]
                group.cancel_scope.cancel()


async def talk(port: int, what: bytes) -> bytes:
    """One connection of a person to a hostile server, to the end that it asks for; what came, at most one piece."""
    async with await anyio.connect_tcp("127.0.0.1", port) as person:
        if what in (b"f", b"h"):
            person.extra(SocketAttribute.raw_socket).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESETS)
        with suppress(anyio.BrokenResourceError, anyio.EndOfStream):
            await person.send(what)
            if what == b"ee":
                got = await person.receive()
                return got + await person.receive() if len(got) == 1 else got
            if what != b"h":
                return await person.receive()
    return b""


async def test_ten_thousand_forwarded_connections_to_a_hostile_server_are_carried_within_their_bound(
    gateway: GatewayFactory, tmp_path: Path, figure: Figure
) -> None:
    chance = random.Random(18)
    echoed = 0
    async with forwarded(gateway, tmp_path / "s", "docker", 8000) as (gw, port):
        before = await calls(gw, "other")
        await begin(gw, ACCEPT, "listening")
        left = [chance.choice((b"ee", b"r", b"f", b"h")) for _ in range(CONNECTIONS)]
        asked = left.count(b"ee")

        async def person() -> None:
            nonlocal echoed
            while left:
                what = left.pop()
                got = await talk(port, what)
                assert gw.ports.totals.open <= MAX_TASK_CONNECTIONS
                echoed += got == b"ee"

        with anyio.fail_after(ALL_PATIENCE):
            async with anyio.create_task_group() as people:
                for _ in range(AT_ONCE):
                    people.start_soon(person)
                meanwhile = await calls(gw, "other")
            while gw.ports.totals.open:
                await anyio.sleep(0.05)
        assert echoed == asked, "an honest connection was lost among the others"
        await calls(gw, "t")
        figure(f"a call of another task {meanwhile:.1f} ms, before {before:.1f} ms")


@contextmanager
def descriptors() -> Iterator[int]:
    """As many as this process may have, and how many sockets at once that leaves for a flood."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield min(CONNECTIONS, hard - 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_ten_thousand_connections_at_once_at_a_forwarded_port_wait_in_the_kernel(
    gateway: GatewayFactory, tmp_path: Path, figure: Figure
) -> None:
    async with serving(echo=True) as server, forwarded(gateway, tmp_path / "s", "local", server.port) as (gw, port):
        before = await calls(gw, "other")
        tried, at_once, meanwhile = 0, 0, 0.0
        with descriptors() as most:
            while tried < CONNECTIONS:
                held = [socket.socket() for _ in range(min(most, CONNECTIONS - tried))]
                try:
                    for person in held:
                        person.setblocking(False)
                        person.connect_ex(("127.0.0.1", port))
                    tried, at_once = tried + len(held), max(at_once, len(held))
                    meanwhile = await calls(gw, "other")
                    await calls(gw, "t")
                    assert gw.ports.totals.open <= MAX_TASK_CONNECTIONS
                finally:
                    for person in held:
                        person.close()
        async with await anyio.connect_tcp("127.0.0.1", port) as after:
            await after.send(b"after")
            with anyio.fail_after(PATIENCE):
                assert await after.receive() == b"after"
        figure(f"{at_once} at once; a call of another task {meanwhile:.1f} ms, before {before:.1f} ms")


async def test_a_server_that_never_ends_its_side_keeps_no_place_of_a_person_who_has_gone(
    gateway: GatewayFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person who has sent an end and is still there may wait for an answer as long as they like."""
    monkeypatch.setattr("taskcell.raw_stream._KEEP_ALIVE", {"TCP_KEEPIDLE": 1, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 4})
    monkeypatch.setattr("taskcell.cli.forwarding.GONE_INTERVAL", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        inside = silent.getsockname()[1]
        async with forwarded(gateway, tmp_path / "s", "local", inside) as (gw, port):
            waiting = await anyio.connect_tcp("127.0.0.1", port)
            async with waiting:
                await waiting.send_eof()
                for _ in range(5):
                    async with await anyio.connect_tcp("127.0.0.1", port) as gone:
                        # The kernel remembers the closed end for so many seconds; else for a minute.
                        gone.extra(SocketAttribute.raw_socket).setsockopt(socket.IPPROTO_TCP, socket.TCP_LINGER2, 1)
                with anyio.fail_after(PATIENCE):
                    while gw.ports.totals.connected < 6 or gw.ports.totals.open > 1:
                        await anyio.sleep(0.05)
                first, _ = silent.accept()
                with first:
                    first.send(b"late")
                with anyio.fail_after(PATIENCE):
                    assert await waiting.receive() == b"late"
