"""The client for programs: ports of a task on this machine, on the local engine."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from client_serving import served
from gateways import GatewayFactory
from http_serving import PATIENCE, TOKENS, serving_http, tokens_for
from taskcell.client import connect
from taskcell.client.cell import Cell
from taskcell.client.failures import ArgumentError, CellError, ForbiddenError, NotFoundError
from taskcell.client.forward import Forward
from taskcell.client.process import RunningCommand

pytestmark = pytest.mark.anyio

#: Says which port it listens on, sends back what comes until its end, and says bye.
ECHO = """\
import socket
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
while True:
    one, _ = listening.accept()
    while data := one.recv(65536):
        one.sendall(data)
    one.sendall(b"bye")
    one.close()
"""
DATA = bytes(range(256)) * 4096


async def port_of(command: RunningCommand) -> int:
    async for piece in command:
        return int(piece.data)
    raise AssertionError("it has ended")


async def echoed(forward: Forward, data: bytes) -> bytes:
    """What comes back, to the end."""
    found = bytearray()
    async with await anyio.connect_tcp(forward.host, forward.port) as stream, anyio.create_task_group() as sending:

        async def send() -> None:
            await stream.send(data)
            await stream.send_eof()

        sending.start_soon(send)
        async for piece in stream:
            found += piece
    return bytes(found)


async def check(cell: Cell) -> None:
    task = await cell.open("own")
    async with task.start(["python3", "-c", ECHO]) as command:
        port = await port_of(command)
        async with task.forward(port) as forward:
            assert forward.url == f"http://127.0.0.1:{forward.port}"
            assert await echoed(forward, DATA) == DATA + b"bye"
            assert await echoed(forward, b"") == b"bye"
        with pytest.raises(OSError, match="onnect"):
            await anyio.connect_tcp(forward.host, forward.port)


async def test_a_port_is_reached_through_the_local_door(gateway: GatewayFactory, tmp_path: Path) -> None:
    async with served(gateway, tmp_path / "state") as cell:
        await check(cell)


async def test_a_port_is_reached_over_http_by_a_token_that_may(tmp_path: Path) -> None:
    (alice,) = tokens_for(tmp_path, "alice")
    with serving_http(tmp_path, TOKENS) as server:
        with anyio.fail_after(4 * PATIENCE):
            async with connect(server.url, token=alice) as cell:
                await check(cell)
            async with connect(server.url, token="none") as nobody:
                errors: list[CellError] = []
                async with nobody.task("own").forward(80, on_error=errors.append) as forward:
                    await reset(forward)
                assert [type(error) for error in errors] == [ForbiddenError]
        server.end()


async def reset(forward: Forward) -> None:
    """Connect; the connection is reset."""
    async with await anyio.connect_tcp(forward.host, forward.port) as stream:
        with pytest.raises(anyio.BrokenResourceError):
            await stream.receive()


async def test_what_cannot_be_forwarded_is_an_error_of_its_own_class(gateway: GatewayFactory, tmp_path: Path) -> None:
    async with served(gateway, tmp_path / "state") as cell:
        task = await cell.open("own")
        await task.run("true")
        for port in (0, 65536, -1):
            with pytest.raises(ArgumentError, match="1 to 65535"):
                async with task.forward(port):
                    pass
        errors: list[CellError] = []
        async with task.forward(1, on_error=errors.append) as forward:
            with pytest.raises(ArgumentError, match="cannot be used"):
                async with task.forward(1, local_port=forward.port):
                    pass
            await reset(forward)
        assert [type(error) for error in errors] == [NotFoundError]
        assert "Nothing listens" in str(errors[0])
        async with task.forward(1) as forward:
            await reset(forward)
        with pytest.raises(ZeroDivisionError):
            async with task.forward(1):
                raise ZeroDivisionError
