"""`/ports/` and `taskcell forward`: what listens in a sandbox, over HTTP and as it is, on the local engine.

The servers here are the tests' own: on the local engine they are on the sandbox's loopback.
"""

# ruff: noqa: SIM117 - a server, a forwarding and a program inside each other are easier to read as such

from __future__ import annotations

import json
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import httpx2
import pytest

from gateways import GatewayFactory
from http_serving import PATIENCE
from proxied import Seen, read_all, serving
from served_door import LOCAL, served_door
from taskcell.audit.log import AuditLog
from taskcell.cli.forwarding import Forwarding, listen_locally
from taskcell.cli.port_servers import LocalServer, NotForwarded
from taskcell.gateway import ports
from taskcell.gateway.gateway import Gateway
from taskcell.model import ToolCall

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Served:
    """A server with its local door, and one task `t`."""

    def __init__(self, gateway: Gateway, door: Path, http: httpx2.AsyncClient) -> None:
        self.gateway, self.door, self.http = gateway, door, http

    async def get(self, port: int, path: str = "", **headers: str) -> httpx2.Response:
        return await self.http.get(f"/ports/t/{port}/{path}", headers=headers)

    async def dial(self) -> anyio.abc.SocketStream:
        return await anyio.connect_unix(str(self.door))

    @asynccontextmanager
    async def forwarding(self, port: int, said: list[str] | None = None) -> AsyncIterator[int]:
        """`taskcell forward t PORT:0`, and the port of this machine that it takes."""
        say = (said if said is not None else []).append
        server = LocalServer(self.door.parent)
        await server.find("t", port)
        forwarding = Forwarding(server, "t", port, say)
        with listen_locally(0) as listening:
            async with anyio.create_task_group() as group:
                group.start_soon(forwarding.serve, listening)
                yield listening[0].getsockname()[1]
                group.cancel_scope.cancel()

    async def is_quiet(self) -> None:
        """Wait until no connection to a port stands."""
        with anyio.fail_after(PATIENCE):
            while self.gateway.ports.totals.open:
                await anyio.sleep(0.01)


@asynccontextmanager
async def opened(gateway: GatewayFactory, state: Path, toml: str = LOCAL, **more: Any) -> AsyncIterator[Served]:
    async with served_door(gateway, state, toml, **more) as parts:
        yield Served(*parts)


@pytest.fixture
async def served(gateway: GatewayFactory, tmp_path: Path) -> AsyncIterator[Served]:
    async with opened(gateway, tmp_path / "s") as found:
        yield found
        await found.is_quiet()


@contextmanager
def silent_port() -> Iterator[socket.socket]:
    """A socket that has a port of loopback and does not listen: nobody else can take the port."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound


def sentence(answer: httpx2.Response) -> str:
    return str(answer.json()["error"]["message"])


def head_of(seen: Seen) -> tuple[str, dict[str, str]]:
    """The first line and the headers of the last request that a server got."""
    first, *lines = seen.connections[-1].partition(b"\r\n\r\n")[0].decode().split("\r\n")
    return first, {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


# --- HTTP --------------------------------------------------------------------------------------------------------


async def test_a_request_and_its_answer_are_passed_on(served: Served) -> None:
    async with serving(b"HTTP/1.1 201 Fine\r\nX-Own: 1\r\nContent-Length: 4\r\n\r\npage") as server:
        answer = await served.get(server.port, "a%20b/c?q=1&r=%2F", x_own="mine")
    assert (answer.status_code, answer.content, answer.headers["x-own"]) == (201, b"page", "1")
    first, headers = head_of(server)
    assert first == "GET /a%20b/c?q=1&r=%2F HTTP/1.1"
    assert headers["x_own"] == "mine"


async def test_the_callers_credentials_stay_out_and_the_server_learns_where_it_is(served: Served) -> None:
    kept_out = {"authorization": "Bearer secret", "cookie": "a=secret", "proxy-authorization": "Basic secret"}
    forged = {"x-forwarded-for": "secret", "x-forwarded-host": "secret", "forwarded": "for=secret", "via": "secret"}
    hop = {"connection": "keep-alive, x-hop", "x-hop": "secret", "te": "trailers", "keep-alive": "timeout=5"}
    async with serving(OK) as server:
        await served.get(server.port, "p", **kept_out, **forged, **hop)
    _, headers = head_of(server)
    assert "secret" not in server.connections[-1].decode()
    assert headers["host"] == f"localhost:{server.port}"
    assert headers["x-forwarded-host"] == "localhost"
    assert headers["x-forwarded-proto"] == "http"
    assert headers["x-forwarded-prefix"] == f"/ports/t/{server.port}"
    assert headers["connection"] == "close"


async def test_an_answer_can_do_nothing_to_the_origin_that_it_comes_from(served: Served) -> None:
    hostile = (
        b"Set-Cookie: a=1\r\nClear-Site-Data: *\r\nAlt-Svc: h3\r\nService-Worker-Allowed: /\r\n"
        b"WWW-Authenticate: Basic\r\nStrict-Transport-Security: max-age=1\r\nKeep-Alive: 5\r\nConnection: x-hop\r\n"
        b"X-Hop: 1\r\nContent-Security-Policy: default-src *\r\n"
    )
    async with serving(b"HTTP/1.1 200 OK\r\n" + hostile + b"Content-Length: 0\r\n\r\n") as server:
        answer = await served.get(server.port)
    gone = {"set-cookie", "clear-site-data", "alt-svc", "service-worker-allowed", "www-authenticate", "x-hop"}
    assert not gone & set(answer.headers)
    assert "strict-transport-security" not in answer.headers
    policies = answer.headers.get_list("content-security-policy")
    assert any(policy.startswith("sandbox ") for policy in policies)
    assert not any("allow-same-origin" in policy for policy in policies)
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("location", "seen"),
    [
        ("/login?a=1", "{prefix}/login?a=1"),
        ("http://localhost:{port}/x", "{prefix}/x"),
        ("http://127.0.0.1:{port}", "{prefix}/"),
        ("next", "next"),
        ("{prefix}/there", "{prefix}/there"),
        ("//other.example/", "//other.example/"),
        ("https://other.example/", "https://other.example/"),
        ("http://localhost:{port}1/", "http://localhost:{port}1/"),
    ],
)
async def test_a_redirect_stays_at_the_port(served: Served, location: str, seen: str) -> None:
    words: dict[str, Any] = {}

    async def redirect(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            head = f"HTTP/1.1 302 Found\r\nLocation: {location.format(**words)}\r\nContent-Length: 0\r\n\r\n"
            await stream.send(head.encode())

    async with listening(redirect) as port:
        words |= {"port": port, "prefix": f"/ports/t/{port}"}
        got = await served.get(port)
    assert got.headers["location"] == seen.format(**words)


async def test_large_bodies_are_streamed_both_ways(served: Served) -> None:
    """More than any buffer on the way holds."""
    size = 16 << 20

    async def serve(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            data = await stream.receive()
            if data.startswith(b"GET"):
                await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))
                return
            count = len(data)
            while not data.endswith(b"\r\n0\r\n\r\n"):
                piece = await stream.receive()
                count, data = count + len(piece), data[-16:] + piece
            await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n" + (b"more" if count >= size else b"less"))

    async def body() -> AsyncIterator[bytes]:
        for _ in range(size >> 20):
            yield bytes(1 << 20)

    async with listening(serve) as port:
        assert (await served.http.post(f"/ports/t/{port}/", content=body())).content == b"more"
        assert len((await served.get(port)).content) == size


async def test_events_come_while_the_answer_goes_on(served: Served) -> None:
    go_on = anyio.Event()

    async def events(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
            await go_on.wait()
            await stream.send(b"data: 2\n\n")

    async with listening(events) as port, served.http.stream("GET", f"/ports/t/{port}/events") as answer:
        pieces = answer.aiter_raw()
        assert await anext(pieces) == b"data: 1\n\n"
        go_on.set()
        assert b"".join([piece async for piece in pieces]) == b"data: 2\n\n"
    assert answer.headers["content-type"] == "text/event-stream"


@pytest.mark.parametrize("method", ["HEAD", "GET", "DELETE", "OPTIONS", "PATCH", "REPORT"])
async def test_each_method_is_passed_on(served: Served, method: str) -> None:
    async with serving(b"HTTP/1.1 204 No Content\r\n\r\n") as server:
        answer = await served.http.request(method, f"/ports/t/{server.port}/")
    assert answer.status_code == 204
    assert head_of(server)[0] == f"{method} / HTTP/1.1"


async def test_the_head_of_an_answer_keeps_its_length(served: Served) -> None:
    async with serving(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n") as server:
        answer = await served.http.head(f"/ports/t/{server.port}/")
    assert answer.headers["content-length"] == "500"


async def test_a_port_without_a_slash_leads_to_the_one_with_it(served: Served) -> None:
    answer = await served.http.get("/ports/t/8000?a=1")
    assert (answer.status_code, answer.headers["location"]) == (308, "/ports/t/8000/?a=1")
    assert (await served.http.get("/ports/other/8000")).status_code == 404


# --- other protocols ---------------------------------------------------------------------------------------------


async def test_a_websocket_is_passed_on_both_ways_until_it_ends(served: Served) -> None:
    async def talk(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            head = await stream.receive()
            assert b"sec-websocket-key: key" in head.lower()
            assert b"upgrade: websocket" in head.lower()
            await stream.send(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Accept: yes\r\nSet-Cookie: a=1\r\n\r\nfirst"
            )
            async for data in stream:
                await stream.send(data.upper())

    async with listening(talk) as port, await served.dial() as client:
        await client.send(upgrading(port, "websocket", "Sec-WebSocket-Key: key\r\n") + b"early")
        head, _, data = await until(client, b"firstEARLY")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"sec-websocket-accept: yes" in head.lower()
        assert b"set-cookie" not in head.lower()
        assert data == b"firstEARLY"
        await client.send(b"more")
        assert await client.receive() == b"MORE"
        await client.send_eof()
        assert await read_all(client) == b""


async def test_a_server_that_does_not_change_its_protocol_answers_as_ever(served: Served) -> None:
    async with serving(OK) as server, await served.dial() as client:
        await client.send(upgrading(server.port, "websocket"))
        assert (await until(client, b"ok"))[0].startswith(b"HTTP/1.1 200 ")


async def test_an_unasked_change_of_protocol_is_a_broken_answer(served: Served) -> None:
    async with serving(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n") as server:
        assert (await served.get(server.port)).status_code == 502


# --- the port itself ---------------------------------------------------------------------------------------------


async def test_a_forwarded_port_carries_bytes_and_each_end(served: Served) -> None:
    async def count(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            size = 0
            async for data in stream:
                size += len(data)
            await stream.send(str(size).encode())

    async with listening(count) as port, served.forwarding(port) as local:
        async with await anyio.connect_tcp("127.0.0.1", local) as program:
            await program.send(b"x" * 3_000_000)
            await program.send_eof()
            assert await read_all(program) == b"3000000"


async def test_what_the_server_says_first_comes_before_anything_is_sent(served: Served) -> None:
    async def greet(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.send(b"hello")
            await stream.receive()

    async with listening(greet) as port, served.forwarding(port) as local:
        async with await anyio.connect_tcp("127.0.0.1", local) as program:
            with anyio.fail_after(PATIENCE):
                assert await program.receive() == b"hello"


async def test_a_reset_of_either_side_is_a_reset_at_the_other(served: Served) -> None:
    resets = struct.pack("ii", 1, 0)
    seen: list[bytes] = []
    done = anyio.Event()

    async def serve(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            if await stream.receive() == b"reset":
                stream.extra(anyio.abc.SocketAttribute.raw_socket).setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, resets
                )
                return
            await stream.send(b"ready")
            seen.append(await read_all(stream))
            done.set()

    async with listening(serve) as port, served.forwarding(port) as local:
        async with await anyio.connect_tcp("127.0.0.1", local) as program:
            await program.send(b"reset")
            assert (await read_all(program)).endswith(b"<reset>")
        with socket.create_connection(("127.0.0.1", local)) as raw:
            raw.setblocking(False)
            await anyio.wait_writable(raw)
            raw.send(b"x")
            await anyio.wait_readable(raw)
            assert raw.recv(5) == b"ready"
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, resets)
        with anyio.fail_after(PATIENCE):
            await done.wait()
    assert seen == [b"<reset>"]


async def test_many_connections_at_once_do_not_mix(served: Served) -> None:
    async with serving(echo=True) as server, served.forwarding(server.port) as local:

        async def talk(number: int) -> None:
            async with await anyio.connect_tcp("127.0.0.1", local) as program:
                for _ in range(5):
                    await program.send(b"%d" % number * 1000)
                await program.send_eof()
                assert await read_all(program) == b"%d" % number * 5000

        async with anyio.create_task_group() as group:
            for number in range(100, 180):
                group.start_soon(talk, number)


async def test_a_server_on_ipv6_alone_is_reached(served: Served) -> None:
    async def hello(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.send(b"six")

    try:
        listener = await anyio.create_tcp_listener(local_host="::1")
    except OSError:
        pytest.skip("this machine has no IPv6")
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, hello)
        async with served.forwarding(listener.extra(anyio.abc.SocketAttribute.local_port)) as local:
            async with await anyio.connect_tcp("127.0.0.1", local) as program:
                assert await read_all(program) == b"six"
        group.cancel_scope.cancel()


async def test_a_port_on_which_nothing_listens_says_so_once_and_works_when_something_does(served: Served) -> None:
    said: list[str] = []

    async def echo(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.send(await stream.receive())

    with silent_port() as bound:
        port = bound.getsockname()[1]
        async with served.forwarding(port, said) as local:
            for _ in range(3):
                async with await anyio.connect_tcp("127.0.0.1", local) as program:
                    assert (await read_all(program)).endswith(b"<reset>")
            assert len(said) == 1
            assert f"Nothing listens on port {port}" in said[0]
            bound.listen()
            listener = await anyio.abc.SocketListener.from_socket(bound)
            async with anyio.create_task_group() as group:
                group.start_soon(listener.serve, echo)
                async with await anyio.connect_tcp("127.0.0.1", local) as program:
                    await program.send(b"now")
                    assert await program.receive() == b"now"
                group.cancel_scope.cancel()


async def test_a_task_that_no_server_has_is_named(served: Served) -> None:
    with pytest.raises(NotForwarded, match="'nobody'"):
        await LocalServer(served.door.parent).find("nobody", 8000)


async def test_a_port_of_this_machine_that_is_taken_is_said(served: Served) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(Exception, match="cannot be used"), listen_locally(taken.getsockname()[1]):
            pass


# --- who may, and how much ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "status", "words"),
    [
        ("/ports/t/{closed}/", 502, "Nothing listens on port"),
        ("/ports/other/{closed}/", 404, "has no sandbox"),
        ("/ports/t/0/", 400, "from 1 to 65535"),
        ("/ports/t/65536/", 400, "from 1 to 65535"),
        ("/ports/t/http/", 400, "where PORT is a number"),
        ("/ports/t/", 400, "where PORT is a number"),
        ("/ports//80/", 400, "TASK/PORT"),
        ("/ports/a%0Ab/80/", 400, "task"),
        ("/ports/t/-80/", 400, "where PORT is a number"),
        ("/ports/t/8%30/", 400, "where PORT is a number"),
    ],
)
async def test_what_cannot_be_reached_is_said(served: Served, address: str, status: int, words: str) -> None:
    with silent_port() as bound:
        answer = await served.http.get(address.format(closed=bound.getsockname()[1]))
    assert answer.status_code == status, answer.text
    assert words in sentence(answer)


async def test_a_rule_over_ports_decides_and_the_log_has_each_connection(
    gateway: GatewayFactory, tmp_path: Path
) -> None:
    audit = AuditLog(tmp_path / "audit.jsonl")
    async with serving(OK) as server, serving(OK) as other:
        rule = f'[[policy.rules]]\nname = "not-this"\ntool = "ports"\ncommand = "^{other.port}$"\neffect = "deny"\n'
        async with opened(gateway, tmp_path / "s", LOCAL + rule, audit=audit) as served:
            assert (await served.get(server.port)).status_code == 200
            denied = await served.get(other.port)
            await served.is_quiet()
    assert denied.status_code == 403
    assert denied.json()["error"]["rule"] == "not-this"
    assert not other.connections
    lines = [line for line in map(json.loads, audit.path.read_text().splitlines()) if line.get("tool") != "terminal"]
    decided = [(line["effect"], line["command"]) for line in lines if line["event"] == "decision"]
    assert decided == [("allow", str(server.port)), ("deny", str(other.port))]
    (end,) = [line for line in lines if line["event"] == "port_end"]
    assert (end["port"], end["task"], end["principal"]) == (server.port, "t", "local")
    assert end["sent"] > 0
    assert end["received"] == len(OK)


async def test_more_connections_than_a_task_may_have_are_refused_and_calls_go_on(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "MAX_TASK_CONNECTIONS", 2)
    async with serving(echo=True) as server, await served.dial() as one, await served.dial() as two:
        for client in (one, two):
            await client.send(upgrading(server.port, "taskcell-forward", bare=True))
            await until(client, b"\r\n\r\n")
        answer = await served.get(server.port)
        assert answer.status_code == 429
        assert "retry-after" in answer.headers
        await served.gateway.call(ToolCall("local", "terminal", {"command": "true", "task_id": "t"}))
    await served.is_quiet()
    async with serving(OK) as server:
        assert (await served.get(server.port)).status_code == 200


# --- bad servers and bad clients ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        b"garbage\r\n\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * (1 << 17),
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nBad\x00: 1\r\n\r\n",
        b"HTTP/1.1 999999 OK\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
    ],
)
async def test_garbage_for_an_answer_is_said(served: Served, answer: bytes) -> None:
    async with serving(answer) as server:
        assert (await served.get(server.port)).status_code == 502
    await served.is_quiet()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ],
)
async def test_an_answer_that_breaks_off_never_looks_whole(served: Served, answer: bytes) -> None:
    async with serving(answer) as server:
        with pytest.raises(httpx2.RemoteProtocolError):
            await served.get(server.port)
    await served.is_quiet()


async def test_a_server_that_never_answers_ends_at_the_bound_or_with_its_client(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        client = await served.dial()
        await client.send(f"GET /ports/t/{port}/ HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        with anyio.fail_after(PATIENCE):
            while not served.gateway.ports.totals.open:
                await anyio.sleep(0.01)
        await client.aclose()
        await served.is_quiet()
        monkeypatch.setattr("taskcell.http.port_exchange.PORT_IDLE_TIMEOUT", 0.2)
        assert (await served.get(port)).status_code == 504


async def test_a_client_that_never_reads_holds_its_window_and_nothing_else(served: Served) -> None:
    async def pour(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            with suppress(anyio.BrokenResourceError):
                await stream.receive()
                await stream.send(b"HTTP/1.1 200 OK\r\n\r\n")
                while True:
                    await stream.send(b"x" * 65536)

    async with listening(pour) as port, await served.dial() as client, served.forwarding(port) as local:
        await client.send(f"GET /ports/t/{port}/ HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        async with await anyio.connect_tcp("127.0.0.1", local) as program:
            await program.send(b"go")
            for _ in range(20):
                with anyio.fail_after(PATIENCE):
                    await served.gateway.call(ToolCall("local", "terminal", {"command": "true", "task_id": "t"}))


async def test_a_flood_of_forwarded_connections_waits_in_the_kernel(served: Served) -> None:
    async with serving(echo=True) as server, served.forwarding(server.port) as local:
        held: list[socket.socket] = []
        try:
            for _ in range(600):
                program = socket.socket()
                program.setblocking(False)
                program.connect_ex(("127.0.0.1", local))
                held.append(program)
            for _ in range(10):
                with anyio.fail_after(PATIENCE):
                    await served.gateway.call(ToolCall("local", "terminal", {"command": "true", "task_id": "t"}))
            assert served.gateway.ports.totals.open <= ports.MAX_TASK_CONNECTIONS
        finally:
            for program in held:
                program.close()
        async with await anyio.connect_tcp("127.0.0.1", local) as after:
            await after.send(b"after")
            with anyio.fail_after(PATIENCE):
                assert await after.receive() == b"after"


@pytest.mark.parametrize(
    "sent",
    [
        b"\xff\xff\xff\xffx",
        b"\x00\x00\x00\x05ab",
        b"\x00\x00",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
async def test_garbage_instead_of_pieces_is_a_reset_in_the_sandbox(served: Served, sent: bytes) -> None:
    got: list[bytes] = []
    done = anyio.Event()

    async def take(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            got.append(await read_all(stream))
            done.set()

    async with listening(take) as port, await served.dial() as client:
        await client.send(upgrading(port, "taskcell-forward", bare=True))
        await until(client, b"\r\n\r\n")
        await client.send(sent)
        await client.send_eof()
        with anyio.fail_after(PATIENCE):
            await done.wait()
    assert got[0].endswith(b"<reset>")


@pytest.mark.parametrize("more", ["Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"])
async def test_a_change_of_protocol_with_a_body_is_a_plain_request(served: Served, more: str) -> None:
    async with serving(OK) as server, await served.dial() as client:
        await client.send(upgrading(server.port, "taskcell-forward", more, bare=True) + b"5\r\nabcde\r\n0\r\n\r\n")
        assert (await until(client, b"\r\n\r\n"))[0].startswith(b"HTTP/1.1 308 ")
    assert not server.connections


# --- what these tests use ----------------------------------------------------------------------------------------


@asynccontextmanager
async def listening(serve: Any) -> AsyncIterator[int]:
    """A server on loopback that runs `serve` for each connection."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, serve)
        yield listener.extra(anyio.abc.SocketAttribute.local_port)
        group.cancel_scope.cancel()


def upgrading(port: int, protocol: str, more: str = "", *, bare: bool = False) -> bytes:
    """A request for another protocol."""
    head = f"GET /ports/t/{port}{'' if bare else '/'} HTTP/1.1\r\nHost: localhost\r\n"
    return f"{head}Connection: Upgrade\r\nUpgrade: {protocol}\r\n{more}\r\n".encode()


async def until(client: anyio.abc.SocketStream, wanted: bytes) -> tuple[bytes, bytes, bytes]:
    """What comes until these bytes are there: head, separator, rest."""
    data = b""
    with anyio.fail_after(PATIENCE):
        while wanted not in data:
            data += await client.receive()
    return data.partition(b"\r\n\r\n")
