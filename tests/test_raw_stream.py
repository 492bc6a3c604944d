"""Sockets that are read and written directly."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator

import anyio
import pytest

from taskcell.raw_stream import RawStream, connect_unix

pytestmark = pytest.mark.anyio

#: More than a socket holds, so that both sides wait for each other.
SIZE = 4 << 20
#: Seconds for what takes milliseconds, on a busy machine.
PATIENCE = 90.0


@pytest.fixture
async def pair() -> AsyncIterator[tuple[RawStream, RawStream]]:
    one, other = socket.socketpair()
    one.setblocking(False)
    other.setblocking(False)
    with anyio.fail_after(PATIENCE):
        async with RawStream(one) as left, RawStream(other) as right:
            yield left, right


async def received(stream: RawStream, size: int) -> bytes:
    found = bytearray()
    while True:
        try:
            piece = await stream.receive(size)
        except anyio.EndOfStream:
            return bytes(found)
        assert 0 < len(piece) <= size
        found += piece


@pytest.mark.parametrize("size", [1000, 1 << 18])
async def test_all_bytes_come_in_order_and_then_the_end(pair: tuple[RawStream, RawStream], size: int) -> None:
    left, right = pair
    data = os.urandom(SIZE)

    async def send() -> None:
        await left.send(data)
        await left.send_eof()

    async with anyio.create_task_group() as sending:
        sending.start_soon(send)
        assert await received(right, size) == data


async def test_a_reader_that_was_cancelled_loses_nothing_and_can_go_on(pair: tuple[RawStream, RawStream]) -> None:
    left, right = pair
    for _ in range(3):
        with anyio.move_on_after(0.01) as bound:
            await right.receive()
        assert bound.cancelled_caught
        await left.send(b"one")
        assert await right.receive() == b"one"


async def test_what_is_sent_now_is_what_the_socket_takes(pair: tuple[RawStream, RawStream]) -> None:
    left, right = pair
    sent = left.send_now(bytes(SIZE))
    assert 0 < sent < SIZE
    assert left.send_now(b"more") == 0
    left._socket.shutdown(socket.SHUT_WR)
    assert len(await received(right, 1 << 18)) == sent


async def test_a_reader_stops_waiting_when_its_stream_is_closed(pair: tuple[RawStream, RawStream]) -> None:
    _, right = pair
    ended: list[type[Exception]] = []

    async def receive(*, task_status: anyio.abc.TaskStatus[None]) -> None:
        task_status.started()
        try:
            await right.receive()
        except (anyio.ClosedResourceError, OSError) as error:
            ended.append(type(error))

    async with anyio.create_task_group() as reading:
        await reading.start(receive)
        await anyio.lowlevel.checkpoint()
        await right.aclose()
    assert ended == [anyio.ClosedResourceError]


async def test_a_socket_that_nobody_listens_at_is_an_error(tmp_path: os.PathLike[str]) -> None:
    with pytest.raises(FileNotFoundError):
        await connect_unix(os.fspath(tmp_path) + "/none")
