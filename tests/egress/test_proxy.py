"""What programs get from the proxy on a sandbox's loopback: CONNECT, plain HTTP and SOCKS 5 on one port."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from proxied import Names, Proxied, proxied, read_all, serving
from supervisor_driver import PATIENCE

pytestmark = pytest.mark.anyio
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


def local(*hosts: str) -> Names:
    return Names({host: ["127.0.0.1"] for host in hosts})


async def exchange(proxy: Proxied, *sent: bytes) -> bytes:
    async with await proxy.dial() as program:
        for data in sent:
            await program.send(data)
        return await read_all(program)


async def test_connect_carries_bytes_both_ways_and_each_end(tmp_path: Path) -> None:
    async with serving(echo=True) as server:
        to = f"files.test:{server.port}"
        async with (
            proxied(tmp_path, to, f"127.0.0.1:{server.port}", names=local("files.test")) as proxy,
            await proxy.dial() as program,
        ):
            await program.send(f"CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n".encode())
            assert (await program.receive()).startswith(b"HTTP/1.1 200 ")
            await program.send(b"x" * 300_000)
            await program.send_eof()
            assert await read_all(program) == b"x" * 300_000


async def test_bytes_that_follow_connect_at_once_are_passed_on(tmp_path: Path) -> None:
    async with serving(b"bye") as server:
        to = f"files.test:{server.port}"
        async with proxied(tmp_path, to, f"127.0.0.1:{server.port}", names=local("files.test")) as proxy:
            got = await exchange(proxy, f"CONNECT {to} HTTP/1.1\r\nHost: h\r\n\r\nearly".encode())
            assert got.endswith(b"\r\n\r\nbye")
            assert server.connections == [b"early"]


async def test_a_plain_request_is_passed_on_as_its_server_reads_it(tmp_path: Path) -> None:
    async with serving(OK) as server:
        to = f"files.test:{server.port}"
        async with proxied(tmp_path, to, f"127.0.0.1:{server.port}", names=local("files.test")) as proxy:
            got = await exchange(
                proxy,
                f"GET http://FILES.test.:{server.port}/a?b=1 HTTP/1.1\r\nHost: elsewhere\r\nX-Mine: 1\r\n"
                "Proxy-Authorization: secret\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n\r\n".encode(),
            )
            assert got.startswith(b"HTTP/1.1 200 OK\r\n")
            assert got.endswith(b"hello")
    (request,) = server.connections
    assert request.startswith(b"GET /a?b=1 HTTP/1.1\r\n")
    assert f"Host: {to}\r\n".encode() in request
    assert b"x-mine: 1" in request.lower()
    for hidden in (b"elsewhere", b"secret", b"x-hop"):
        assert hidden not in request.lower()


async def test_each_request_on_a_connection_is_judged_for_itself(tmp_path: Path) -> None:
    async with serving(OK) as server:
        to = f"files.test:{server.port}"
        names = local("files.test", "other.test")
        async with proxied(tmp_path, to, f"127.0.0.1:{server.port}", names=names) as proxy:
            head = "GET http://{}/ HTTP/1.1\r\nHost: h\r\n\r\n"
            got = await exchange(proxy, (head.format(to) * 2 + head.format(f"other.test:{server.port}")).encode())
            assert got.count(b"hello") == 2
            assert got.count(b"HTTP/1.1 403 ") == 1
            assert b"may not reach other.test" in got
            assert names.asked == ["files.test", "files.test"]
    assert len(server.connections) == 2


@pytest.mark.parametrize(
    "length", ["Content-Length: 6\r\n\r\nabcdef", "Transfer-Encoding: chunked\r\n\r\n6\r\nabcdef\r\n0\r\n\r\n"]
)
async def test_a_body_is_passed_on_and_framed_in_one_way(tmp_path: Path, length: str) -> None:
    async with serving(OK, ends=False) as server:
        to = f"files.test:{server.port}"
        async with (
            proxied(tmp_path, to, f"127.0.0.1:{server.port}", names=local("files.test")) as proxy,
            await proxy.dial() as program,
        ):
            await program.send(f"POST http://{to}/ HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n{length}".encode())
            await server.until(b"abcdef")
            got = b""
            while not got.endswith(b"hello"):
                got += await program.receive()
    assert (b"content-length" in server.connections[0].lower()) != (
        b"transfer-encoding" in server.connections[0].lower()
    )


async def test_an_answer_without_a_length_ends_with_its_connection(tmp_path: Path) -> None:
    async with serving(b"HTTP/1.1 200 OK\r\n\r\nall of it") as server:
        to = f"files.test:{server.port}"
        async with proxied(tmp_path, to, f"127.0.0.1:{server.port}", names=local("files.test")) as proxy:
            got = await exchange(proxy, f"GET http://{to}/ HTTP/1.0\r\n\r\n".encode())
            assert got.endswith(b"\r\n\r\nall of it")


async def test_socks_carries_bytes_to_a_name(tmp_path: Path) -> None:
    async with serving(echo=True) as server:
        to = f"files.test:{server.port}"
        async with (
            proxied(tmp_path, to, f"127.0.0.1:{server.port}", names=local("files.test")) as proxy,
            await proxy.dial() as program,
        ):
            request = b"\5\1\0\3\x0afiles.test" + server.port.to_bytes(2, "big")
            await program.send(b"\5\1\0" + request + b"early ")
            await program.send(b"late")
            await program.send_eof()
            assert await read_all(program) == b"\5\0" + b"\5\0\0\1" + bytes(6) + b"early late"


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"\5\1\2", b"\5\xff"),
        (b"\5\1\0\5\2\0\1\x7f\0\0\1\0\x50", b"\5\0\5\7"),
        (b"\5\1\0\5\1\0\x09\x7f\0\0\1\0\x50", b"\5\0\5\x08"),
        (b"\5\1\0\5\1\0\1\x7f\0\0\1\0\x50", b"\5\0\5\2"),
        (b"\5\1\0\5\1\0\4" + bytes(15) + b"\1\0\x50", b"\5\0\5\2"),
        (b"\5\1\0\5\1\0\3\x0aother.test\0\x50", b"\5\0\5\2"),
        (b"\5\1\0\5\1\0\3\0\0\x50", b"\5\0\5\1"),
        (b"\5\1\0\5\1\0\3\x02\xff\xfe\0\x50", b"\5\0\5\1"),
        (b"\5\1\0\5\1\0\3\x0aknown.test\0\0", b"\5\0\5\1"),
        (b"\5\1\0\5\1\0\3\x0aknown.test\0\x50", b"\5\0\5\4"),
    ],
)
async def test_socks_says_why_not(tmp_path: Path, sent: bytes, answer: bytes) -> None:
    async with proxied(tmp_path, "known.test") as proxy:
        assert (await exchange(proxy, sent)).startswith(answer)


async def test_a_refusal_names_the_host_and_what_is_refused_is_not_looked_up(tmp_path: Path) -> None:
    names = local("other.test")
    async with proxied(tmp_path, "files.test", names=names) as proxy:
        got = await exchange(proxy, b"CONNECT other.test:443 HTTP/1.1\r\nHost: h\r\n\r\n")
        assert got.startswith(b"HTTP/1.1 403 ")
        assert b"may not reach other.test:443" in got
        assert not names.asked
        (refused,) = proxy.sandbox.gate.take_refused()
        assert str(refused.to) == "other.test:443"
        assert not proxy.sandbox.gate.take_refused()


async def test_a_server_that_cannot_be_reached_is_said_to_be(tmp_path: Path) -> None:
    async with serving() as gone:
        port = gone.port
    async with proxied(tmp_path, "files.test", f"127.0.0.1:{port}", names=local("files.test")) as proxy:
        got = await exchange(proxy, f"CONNECT files.test:{port} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        assert got.startswith(b"HTTP/1.1 502 ")
        assert b"cannot be reached" in got
        got = await exchange(proxy, b"CONNECT unknown.files.test:80 HTTP/1.1\r\nHost: h\r\n\r\n")
        assert got.startswith(b"HTTP/1.1 403 ")
    async with proxied(tmp_path / "more", "*.test", names=Names()) as proxy:
        got = await exchange(proxy, b"CONNECT unknown.test:80 HTTP/1.1\r\nHost: h\r\n\r\n")
        assert b"has no address" in got


@pytest.mark.parametrize("sent", [b"GET /", b"CONNECT a", b"\5\1\0\5\1"])
async def test_what_breaks_off_leaves_the_proxy_as_it_was(tmp_path: Path, sent: bytes) -> None:
    async with serving(echo=True) as server:
        to = f"127.0.0.1:{server.port}"
        async with proxied(tmp_path, to, max_connections=2) as proxy:
            for _ in range(4):
                async with await proxy.dial() as program:
                    await program.send(sent)
            async with await proxy.dial() as program:
                await program.send(f"CONNECT {to} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
                with anyio.fail_after(PATIENCE):
                    assert (await program.receive()).startswith(b"HTTP/1.1 200 ")
