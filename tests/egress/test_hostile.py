"""A hostile program at the proxy, and hostile servers behind it: nothing beyond its own bounds suffers."""

# ruff: noqa: SIM117, PT012 - a server, a proxy and a program inside each other are easier to read as such

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from ipaddress import ip_address
from pathlib import Path

import anyio
import pytest

from proxied import Names, Proxied, Seen, proxied, read_all, serving
from supervisor_driver import PATIENCE
from taskcell.audit.log import AuditLog
from taskcell.destinations import Destination, Pattern
from taskcell.egress import egress as service
from taskcell.egress import gate as gates
from taskcell.egress.dial import dial
from taskcell.egress.rules import NotConnected, Rules

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def reaching(folder: Path, server: Seen, **settings: object) -> AsyncIterator[Proxied]:
    async with proxied(folder, f"127.0.0.1:{server.port}", **settings) as proxy:  # type: ignore[arg-type]
        yield proxy


async def connected(proxy: Proxied, server: Seen) -> anyio.abc.SocketStream:
    """A connection to the server that stands, and has carried something each way."""
    program = await proxy.dial()
    await program.send(f"CONNECT 127.0.0.1:{server.port} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    with anyio.fail_after(PATIENCE):
        assert (await program.receive()).startswith(b"HTTP/1.1 200 ")
    return program


async def still_works(proxy: Proxied, server: Seen) -> None:
    async with await connected(proxy, server) as program:
        await program.send(b"after")
        with anyio.fail_after(PATIENCE):
            assert await program.receive() == b"after"


SPELLINGS = [
    *("other.test", "OTHER.test.", "files.test.other.test", "files.test@other.test", "other.test@files.test"),
    *("files%2etest", "files.test%00.other.test", "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1"),
    *("[::1]", "[::ffff:127.0.0.1]", "localhost", "files.test:80:443", "files.test\\@other.test", "10.0.0.5", "*.test"),
    *("", ".", "files.test:", "files..test", "169.254.169.254", "[64:ff9b::7f00:1]", "files.test#", "files.test?"),
    *("127.0.0.1.", "017700000001", "0x7f.1", "[::]", "[::127.0.0.1]", "[2002:7f00:1::1]", "[2001:0:7f00:1::1]"),
    *("[fe80::1%25lo]", "[::1%lo]", "xn--files-xya.test", "user:pw@other.test", "\uff11\uff12\uff17.0.0.1"),
]  # fmt: skip


@pytest.mark.parametrize("host", SPELLINGS)
async def test_no_other_spelling_reaches_what_is_not_allowed(tmp_path: Path, host: str) -> None:
    names = Names({"localhost": ["127.0.0.1"], "other.test": ["1.1.1.1"]})
    async with proxied(tmp_path, "files.test", names=names) as proxy:
        for request in (
            f"CONNECT {host}:443 HTTP/1.1",
            f"GET http://{host}/ HTTP/1.1",
            f"GET http://{host}:443/ HTTP/1.1",
        ):
            async with await proxy.dial() as program:
                await program.send(request.encode() + b"\r\nHost: files.test\r\n\r\n")
                answer = await read_all(program)
            assert answer.split(b" ")[1] in (b"400", b"403", b"502"), answer
        async with await proxy.dial() as program:
            name = host.strip("[]").encode()
            await program.send(b"\x05\x01\x00\x05\x01\x00\x03" + bytes((len(name),)) + name + b"\x01\xbb")
            answer = await read_all(program)
        assert answer.startswith(b"\x05\x00\x05"), answer
        assert answer[3] != 0, "SOCKS connected"
        # The only name that may be looked up is the allowed one, which has no address here.
        assert set(names.asked) <= {"files.test"}


@pytest.mark.parametrize(
    "request_line",
    [
        *("GET / HTTP/1.1", "GET https://files.test/ HTTP/1.1", "GET ftp://files.test/ HTTP/1.1", "CONNECT / HTTP/1.1"),
        *("CONNECT files.test HTTP/1.1", "CONNECT files.test:0 HTTP/1.1", "CONNECT files.test:99999 HTTP/1.1"),
        *("OPTIONS * HTTP/1.1", "GET http:// HTTP/1.1", "GET http://files.test/#a HTTP/1.1"),
        *("GET http:files.test HTTP/1.1", "NONSENSE", "\x16\x03\x01\x02\x00", "\x04\x01\x00\x50"),
    ],
)  # fmt: skip
async def test_garbage_is_answered_and_looked_up_nowhere(tmp_path: Path, request_line: str) -> None:
    async with proxied(tmp_path, "files.test") as proxy:
        async with await proxy.dial() as program:
            await program.send(request_line.encode("latin-1") + b"\r\nHost: files.test\r\n\r\n")
            answer = await read_all(program)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert not proxy.names.asked


@pytest.mark.parametrize(
    "smuggled",
    [
        "Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        "Transfer-Encoding: gzip\r\n\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        "Content-Length: +5\r\n\r\n",
        "Content-Length : 5\r\n\r\n",
        "X: a\x00b\r\n\r\n",
    ],
)
async def test_a_request_of_two_lengths_goes_nowhere(tmp_path: Path, smuggled: str) -> None:
    async with serving(b"HTTP/1.1 200 OK\r\n\r\n") as server, reaching(tmp_path, server) as proxy:
        async with await proxy.dial() as program:
            head = f"POST http://127.0.0.1:{server.port}/ HTTP/1.1\r\nHost: h\r\n{smuggled}"
            await program.send(head.encode() + b"GET http://other.test/ HTTP/1.1\r\nHost: h\r\n\r\n")
            answer = await read_all(program)
        assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 "))
        assert not server.connections


async def test_a_second_request_behind_a_body_is_judged_for_itself(tmp_path: Path) -> None:
    ok = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    async with serving(ok, ends=False) as server, reaching(tmp_path, server) as proxy:
        async with await proxy.dial() as program:
            head = f"POST http://127.0.0.1:{server.port}/ HTTP/1.1\r\nHost: h\r\n"
            both = "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            await program.send((head + both + "GET http://127.0.0.1:1/admin HTTP/1.1\r\nHost: h\r\n\r\n").encode())
            answer = await read_all(program)
        assert b" 403 " in answer or b" 400 " in answer
        assert not any(b"admin" in data for data in server.connections)
        assert not any(b"content-length" in data.lower() for data in server.connections)


async def test_a_name_that_moves_to_a_private_address_is_not_followed() -> None:
    """What was judged is connected to; a lookup that says something else later changes nothing."""
    found = iter([["127.0.0.1"], ["1.1.1.1", "127.0.0.1", "10.0.0.5", "::1"]])
    asked = []

    async def rebind(host: str, port: int) -> list[object]:
        asked.append(host)
        return [ip_address(address) for address in next(found)]

    with socket.create_server(("127.0.0.1", 0)) as private:
        to = Destination("files.test", private.getsockname()[1])
        rules = Rules((Pattern.read("files.test"),))
        with pytest.raises(NotConnected, match="not a public one"):
            await dial(to, rules, rebind)  # type: ignore[arg-type]
        allowed = rules.judged(to, [ip_address(address) for address in ["1.1.1.1", "127.0.0.1", "10.0.0.5", "::1"]])
        assert allowed == [ip_address("1.1.1.1")]
        private.setblocking(False)
        with pytest.raises(BlockingIOError):
            private.accept()
    assert asked == ["files.test"]


async def test_a_public_address_of_the_servers_own_machine_is_refused() -> None:
    """Loopback stands for it here: the rule about public addresses is left out."""

    class AnyAddress(Rules):
        def judged(self, to: Destination, found: object) -> object:  # type: ignore[override]
            return list(found)  # type: ignore[call-overload]

    async def here(host: str, port: int) -> list[object]:
        return [ip_address("127.0.0.1")]

    with socket.create_server(("127.0.0.1", 0)) as own:
        with pytest.raises(NotConnected, match="own machine"):
            await dial(Destination("files.test", own.getsockname()[1]), AnyAddress((Pattern.read("*"),)), here)  # type: ignore[arg-type]


async def test_a_thousand_connections_leave_room_for_calls_and_for_others(tmp_path: Path) -> None:
    async with serving(echo=True) as server, reaching(tmp_path, server, max_connections=4) as proxy:
        held: list[socket.socket] = []
        try:
            for _ in range(1000):
                program = socket.socket()
                program.setblocking(False)
                program.connect_ex(("127.0.0.1", proxy.port))
                held.append(program)
            for _ in range(20):
                with anyio.fail_after(PATIENCE):
                    await proxy.channel.ping()
            assert len(proxy.channel.tunnels) <= 4
        finally:
            for program in held:
                program.close()
        await still_works(proxy, server)


async def test_half_a_request_for_ever_ends_at_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (service, gates):
        monkeypatch.setattr(module, "REQUEST_TIMEOUT", 0.2)
    async with serving(echo=True) as server, reaching(tmp_path, server, max_connections=2) as proxy:
        async with AsyncExitStack() as held:
            for _ in range(2):
                await held.enter_async_context(await proxy.dial())
            await still_works(proxy, server)


async def test_a_head_without_end_is_cut_off(tmp_path: Path) -> None:
    async with serving(echo=True) as server, reaching(tmp_path, server) as proxy:
        async with await proxy.dial() as program:
            # The proxy answers and closes, or resets what it does not read.
            with suppress(anyio.BrokenResourceError), anyio.fail_after(PATIENCE):
                await program.send(b"GET http://127.0.0.1/ HTTP/1.1\r\n")
                for _ in range(300):
                    await program.send(b"X: " + b"a" * 1000 + b"\r\n")
                assert (await program.receive()).startswith(b"HTTP/1.1 4")
                with pytest.raises(anyio.EndOfStream):
                    await program.receive()
        await still_works(proxy, server)


async def test_a_program_that_never_reads_holds_its_window_and_nothing_else(tmp_path: Path) -> None:
    async with serving(b"x" * (64 << 20), ends=False) as server, reaching(tmp_path, server) as proxy:
        async with await connected(proxy, server) as program:
            await program.send(b"go")
            await server.until(b"go")
            for _ in range(20):
                with anyio.fail_after(PATIENCE):
                    await proxy.channel.ping()


async def test_a_server_that_never_answers_holds_its_connection_and_nothing_else(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        async with serving(echo=True) as server:
            allowed = (f"127.0.0.1:{port}", f"127.0.0.1:{server.port}")
            async with proxied(tmp_path, *allowed) as proxy, await proxy.dial() as program:
                await program.send(f"GET http://127.0.0.1:{port}/ HTTP/1.1\r\nHost: h\r\n\r\n".encode())
                await still_works(proxy, server)


@pytest.mark.parametrize(
    "answer",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz",
    ],
)
async def test_an_answer_that_breaks_off_never_looks_whole(tmp_path: Path, answer: bytes) -> None:
    async with serving(answer) as server, reaching(tmp_path, server) as proxy:
        async with await proxy.dial() as program:
            await program.send(f"GET http://127.0.0.1:{server.port}/ HTTP/1.1\r\nHost: h\r\n\r\n".encode())
            got = await read_all(program)
        assert got.startswith(b"HTTP/1.1 502 ") or got.endswith(b"<reset>")


async def test_a_broken_connection_is_passed_on_as_one(tmp_path: Path) -> None:
    async with serving(echo=True) as server, reaching(tmp_path, server) as proxy:
        async with await connected(proxy, server) as program:
            await program.send(b"x")
            await program.receive()
            proxy.channel.give_up("a test ends it")
            proxy.supervisor.claim().close()
            assert await read_all(program) == b"<reset>"


async def test_too_many_bytes_end_the_task_s_connections(tmp_path: Path) -> None:
    async with serving(echo=True) as server, reaching(tmp_path, server, max_bytes=100_000) as proxy:
        async with await connected(proxy, server) as program:
            await program.send(b"x" * 200_000)
            assert (await read_all(program)).endswith(b"<reset>")
        async with await proxy.dial() as program:
            await program.send(f"CONNECT 127.0.0.1:{server.port} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
            answer = await read_all(program)
        assert answer.startswith(b"HTTP/1.1 429 ")
        assert b"egress.max_bytes" in answer


async def test_more_connections_of_a_task_than_it_may_have_are_refused(tmp_path: Path) -> None:
    async with serving(echo=True) as server, reaching(tmp_path, server, max_connections=2) as proxy:
        account = proxy.sandbox.gate.account()
        with account.connection(Destination("a", 1)), account.connection(Destination("a", 1)):
            async with await proxy.dial() as program:
                await program.send(f"CONNECT 127.0.0.1:{server.port} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
                assert (await read_all(program)).startswith(b"HTTP/1.1 429 ")
        await still_works(proxy, server)


async def test_each_connection_is_in_the_audit_log_with_its_end_and_each_refusal_once(tmp_path: Path) -> None:
    audit = AuditLog(tmp_path / "audit.jsonl")
    async with serving(echo=True) as server:
        to = f"127.0.0.1:{server.port}"
        async with proxied(tmp_path, to, audit=audit) as proxy:
            async with await connected(proxy, server) as program:
                await program.send(b"12345")
                assert await program.receive() == b"12345"
            for _ in range(3):
                async with await proxy.dial() as program:
                    await program.send(b"CONNECT other.test:443 HTTP/1.1\r\nHost: h\r\n\r\n")
                    await read_all(program)
            with anyio.fail_after(PATIENCE):
                while proxy.egress.totals.open:
                    await anyio.sleep(0.01)
        totals = proxy.egress.totals
        assert (totals.connected, totals.refused, totals.sent, totals.received) == (1, 3, 5, 5)
    lines = [json.loads(line) for line in audit.path.read_text().splitlines()]
    kinds = sorted((line["event"], line.get("effect", ""), line["to"]) for line in lines)
    assert kinds == [("egress", "allow", to), ("egress", "deny", "other.test:443"), ("egress_end", "", to)]
    end = next(line for line in lines if line["event"] == "egress_end")
    assert (end["sent"], end["received"], end["task"], end["principal"]) == (5, 5, "t", "local")
    assert next(line for line in lines if line.get("effect") == "allow")["address"] == "127.0.0.1"


async def test_without_a_line_in_the_audit_log_nothing_goes_out(tmp_path: Path) -> None:
    (tmp_path / "audit.jsonl").mkdir()
    async with serving(echo=True) as server:
        to = f"127.0.0.1:{server.port}"
        async with proxied(tmp_path, to, audit=AuditLog(tmp_path / "audit.jsonl")) as proxy:
            async with await proxy.dial() as program:
                await program.send(f"CONNECT {to} HTTP/1.1\r\nHost: h\r\n\r\n".encode() + b"secret")
                assert b"audit log" in await read_all(program)
        assert not any(server.connections)


async def test_a_supervisor_that_accepts_or_sends_more_than_it_may_is_lost(tmp_path: Path) -> None:
    """A supervisor that a sandbox has taken over must not grow the server."""
    from taskcell.errors import ProtocolError
    from taskcell.supervisor.events import TunnelData, TunnelOpened

    async with proxied(tmp_path, "files.test", max_connections=1) as proxy:
        tunnels = proxy.channel.tunnels
        tunnels.take(TunnelOpened(1 << 31, 1))
        with pytest.raises(ProtocolError, match="accepted more"):
            tunnels.take(TunnelOpened((1 << 31) + 1, 1))
        with pytest.raises(ProtocolError, match="more of a tunnel"):
            for _ in range(8):
                tunnels.take(TunnelData(1 << 31, b"x" * (1 << 16)))
