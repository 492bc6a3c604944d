"""The event-loop transport alone: bytes on real descriptors, messages above them."""

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCNotification, JSONRPCRequest, JSONRPCResponse

from taskcell.mcp.transport.descriptors import Wire
from taskcell.mcp.transport.lines import MAX_LINE
from taskcell.mcp.transport.stdio import HIGH_WATER, LAST_ANSWERS, StdioReader, StdioWriter, stdio_streams

#: Seconds for anything here, on a busy machine; all of it takes milliseconds.
PATIENCE = 20.0

pytestmark = pytest.mark.anyio


class Pipes:
    """A client's two ends, and the wire that the server gets."""

    def __init__(self) -> None:
        read, self.to_server = os.pipe()
        self.from_server, write = os.pipe()
        self.wire = Wire(read, write)
        for fd in self.wire:
            os.set_blocking(fd, False)
        self.events: list[str] = []

    def streams(self) -> Any:
        return stdio_streams(
            self.wire, on_end=lambda: self.events.append("end"), on_broken=lambda: self.events.append("broken")
        )

    def say(self, *lines: bytes) -> None:
        os.write(self.to_server, b"".join(line + b"\n" for line in lines))

    def hear(self) -> Any:
        return json.loads(os.read(self.from_server, 1 << 16))

    def close(self) -> None:
        for fd in (self.to_server, self.from_server, *self.wire):
            with contextlib.suppress(OSError):
                os.close(fd)


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    made = Pipes()
    yield made
    made.close()


def request(identity: int | str) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": identity, "method": "ping"}).encode()


def answer(identity: int | str, text: str = "") -> SessionMessage:
    return SessionMessage(JSONRPCResponse(jsonrpc="2.0", id=identity, result={"text": text}))


async def received(reader: StdioReader) -> list[Any]:
    return [item.message async for item in reader if isinstance(item, SessionMessage)]


async def test_messages_are_read_in_order_until_the_input_ends(pipes: Pipes) -> None:
    pipes.say(request(1), request("two"), b"  ", b'{"jsonrpc":"2.0","method":"n"}')
    os.close(pipes.to_server)
    with anyio.fail_after(PATIENCE):
        async with pipes.streams() as (reader, _):
            found = await received(reader)
    assert [message.id for message in found if isinstance(message, JSONRPCRequest)] == [1, "two"]
    assert isinstance(found[2], JSONRPCNotification)
    assert pipes.events == ["end"]


async def test_a_last_line_without_its_end_is_read_too(pipes: Pipes) -> None:
    os.write(pipes.to_server, request(1))
    os.close(pipes.to_server)
    with anyio.fail_after(PATIENCE):
        async with pipes.streams() as (reader, _):
            assert len(await received(reader)) == 1


async def test_a_bad_line_is_answered_and_the_next_one_is_served(pipes: Pipes) -> None:
    pipes.say(b"{nonsense", request(1))
    with anyio.fail_after(PATIENCE):
        async with pipes.streams() as (reader, _):
            item = await reader.receive()
    assert isinstance(item, SessionMessage)
    assert pipes.hear()["error"]["code"] == -32700


async def test_a_line_over_the_limit_is_answered_and_the_next_one_is_served(pipes: Pipes) -> None:
    def feed() -> None:
        for _ in range(MAX_LINE // (1 << 20) + 2):
            os.write(pipes.to_server, b"x" * (1 << 20))
        pipes.say(b"", request(1))

    with anyio.fail_after(PATIENCE):
        async with pipes.streams() as (reader, _), anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, feed)
            item = await reader.receive()
    assert isinstance(item, SessionMessage)
    assert isinstance(item.message, JSONRPCRequest)
    assert "skipped" in pipes.hear()["error"]["message"]


async def test_a_flood_of_requests_leaves_other_tasks_their_turn(pipes: Pipes) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await anyio.sleep(0)
            turns += 1

    pipes.say(*(request(number) for number in range(200)))
    with anyio.fail_after(PATIENCE):
        async with pipes.streams() as (reader, _), anyio.create_task_group() as tasks:
            tasks.start_soon(count)
            for _ in range(200):
                await reader.receive()
            tasks.cancel_scope.cancel()
    assert turns >= 199


@pytest.mark.parametrize("kind", ["file", "null", "socket"])
async def test_standard_input_may_be_anything_that_can_be_read(kind: str, pipes: Pipes, tmp_path: Path) -> None:
    lines = request(1) + b"\n" + request(2) + b"\n"
    if kind == "socket":
        ours, theirs = socket.socketpair()
        theirs.sendall(lines)
        theirs.shutdown(socket.SHUT_WR)
        fd = os.dup(ours.fileno())
    else:
        (tmp_path / "in").write_bytes(lines)
        fd = os.open(tmp_path / "in" if kind == "file" else os.devnull, os.O_RDONLY)
    os.set_blocking(fd, False)
    writer = StdioWriter(pipes.wire.write, lambda: None)
    with anyio.fail_after(PATIENCE):
        found = await received(StdioReader(fd, writer, lambda: None))
    os.close(fd)
    assert len(found) == (0 if kind == "null" else 2)


async def test_one_socket_may_be_both_input_and_output() -> None:
    ours, theirs = socket.socketpair()
    wire = Wire(os.dup(ours.fileno()), os.dup(ours.fileno()))
    ours.setblocking(False)
    broken: list[str] = []
    with anyio.fail_after(PATIENCE):
        async with stdio_streams(wire, on_end=lambda: None, on_broken=lambda: broken.append("broken")) as streams:
            reader, writer = streams
            for number in range(3):
                theirs.sendall(request(number) + b"\n")
                await reader.receive()
                await writer.send(answer(number))
                assert json.loads(theirs.recv(1 << 16))["id"] == number
    assert not broken


async def test_an_answer_larger_than_the_pipe_arrives_whole(pipes: Pipes) -> None:
    text = "x" * (3 << 20)
    collected = bytearray()

    def collect() -> None:
        while not collected.endswith(b"\n"):
            collected.extend(os.read(pipes.from_server, 1 << 16))

    with anyio.fail_after(PATIENCE):
        async with pipes.streams() as (_, writer), anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, collect)
            await writer.send(answer(1, text))
    assert json.loads(collected)["result"]["text"] == text


async def test_a_client_that_does_not_read_holds_answers_back_but_no_memory_grows(pipes: Pipes) -> None:
    sent = 0

    async def send_for_ever(writer: StdioWriter) -> None:
        nonlocal sent
        while True:
            await writer.send(answer(1, "x" * (1 << 16)))
            sent += 1

    with anyio.fail_after(PATIENCE):
        async with pipes.streams() as (_, writer), anyio.create_task_group() as tasks:
            tasks.start_soon(send_for_ever, writer)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
    assert 0 < sent <= 2 * HIGH_WATER >> 16


async def test_a_cancelled_sender_leaves_no_half_line(pipes: Pipes) -> None:
    big = "x" * (HIGH_WATER * 2)
    collected = bytearray()

    def collect() -> None:
        while collected.count(b"\n") < 2:
            collected.extend(os.read(pipes.from_server, 1 << 16))

    with anyio.fail_after(PATIENCE):
        async with pipes.streams() as (_, writer), anyio.create_task_group() as outer:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(writer.send, answer(1, big))
                await anyio.wait_all_tasks_blocked()
                tasks.cancel_scope.cancel()
            outer.start_soon(anyio.to_thread.run_sync, collect)
            await writer.send(answer(2))
    first, second = collected.splitlines()
    assert json.loads(first)["result"]["text"] == big
    assert json.loads(second)["id"] == 2


async def test_a_client_that_stopped_reading_ends_the_session_once(pipes: Pipes) -> None:
    os.close(pipes.from_server)
    with anyio.fail_after(PATIENCE):
        async with pipes.streams() as (_, writer):
            await writer.send(answer(1))
            with pytest.raises(anyio.BrokenResourceError):
                await writer.send(answer(2))
    assert pipes.events == ["broken"]


async def test_the_end_of_input_waits_for_answers_that_are_on_their_way(pipes: Pipes) -> None:
    pipes.say(request(1))
    os.close(pipes.to_server)
    with anyio.fail_after(PATIENCE):
        async with pipes.streams() as (reader, writer):
            await reader.receive()

            async def respond() -> None:
                await anyio.wait_all_tasks_blocked()
                await writer.send(answer(1))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(respond)
                with pytest.raises(anyio.EndOfStream):
                    await reader.receive()
    assert pipes.hear()["id"] == 1


async def test_the_end_of_input_does_not_wait_long_for_a_call_that_still_runs(pipes: Pipes) -> None:
    pipes.say(request(1))
    os.close(pipes.to_server)
    with anyio.fail_after(PATIENCE):
        async with pipes.streams() as (reader, _):
            await reader.receive()
            began = anyio.current_time()
            with pytest.raises(anyio.EndOfStream):
                await reader.receive()
            assert anyio.current_time() - began >= LAST_ANSWERS


async def test_the_end_of_input_does_not_wait_for_a_call_that_was_cancelled(pipes: Pipes) -> None:
    pipes.say(request(1), b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}')
    os.close(pipes.to_server)
    with anyio.fail_after(LAST_ANSWERS):
        async with pipes.streams() as (reader, _):
            assert len(await received(reader)) == 2
