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
from taskcell.mcp.transport.in_flight import OVERHEAD, READ_AHEAD, InFlight, Kind
from taskcell.mcp.transport.lines import MAX_LINE
from taskcell.mcp.transport.reader import LAST_ANSWERS, StdioReader
from taskcell.mcp.transport.stdio import stdio_streams
from taskcell.mcp.transport.writer import HIGH_WATER, StdioWriter
from taskcell.model import MIB

#: Seconds for anything here, on a busy machine; all of it takes milliseconds.
PATIENCE = 60.0

#: Bytes of a file in these tests, and how many of them are in flight at once.
FILE = MIB
AT_ONCE = 4

pytestmark = pytest.mark.anyio


def kind_of(message: JSONRPCRequest) -> Kind | None:
    """Files wait for room; whatever else is asked for does not."""
    return Kind("files", AT_ONCE * (FILE + 2 * OVERHEAD), FILE) if message.method == "file" else None


class Pipes:
    """A client's two ends, and the wire that the server gets."""

    def __init__(self) -> None:
        read, self.to_server = os.pipe()
        self.from_server, write = os.pipe()
        self.wire = Wire(read, write)
        for fd in self.wire:
            os.set_blocking(fd, False)
        self.events: list[str] = []
        self.in_flight = InFlight(kind_of, tuple)

    def streams(self) -> Any:
        return stdio_streams(
            self.wire,
            self.in_flight,
            on_end=lambda: self.events.append("end"),
            on_broken=lambda: self.events.append("broken"),
        )

    def read_from(self, path: Path, *lines: bytes) -> None:
        """Have the server read a file, as in `taskcell serve < file`."""
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        fd = os.open(path, os.O_RDONLY)
        os.dup2(fd, self.wire.read)
        os.close(fd)

    def say(self, *lines: bytes) -> None:
        os.write(self.to_server, b"".join(line + b"\n" for line in lines))

    def hear(self) -> Any:
        return json.loads(os.read(self.from_server, 1 << 16))

    def unread(self) -> bytes:
        """All that has arrived at the client so far."""
        os.set_blocking(self.from_server, False)
        found = bytearray()
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self.from_server, 1 << 16):
                found += part
        return bytes(found)

    def close(self) -> None:
        for fd in (self.to_server, self.from_server, *self.wire):
            with contextlib.suppress(OSError):
                os.close(fd)


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    made = Pipes()
    yield made
    made.close()


def request(identity: int | str, method: str = "ping") -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": identity, "method": method}).encode()


def cancel(identity: int | str) -> bytes:
    params = {"requestId": identity}
    return json.dumps({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}).encode()


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
    writer = StdioWriter(pipes.wire.write, pipes.in_flight, lambda: None)
    with anyio.fail_after(PATIENCE):
        found = await received(StdioReader(fd, writer, pipes.in_flight, lambda: None))
    os.close(fd)
    assert len(found) == (0 if kind == "null" else 2)


async def test_one_socket_may_be_both_input_and_output() -> None:
    ours, theirs = socket.socketpair()
    wire = Wire(os.dup(ours.fileno()), os.dup(ours.fileno()))
    ours.setblocking(False)
    broken: list[str] = []
    with anyio.fail_after(PATIENCE):
        in_flight = InFlight(kind_of, tuple)
        ends = {"on_end": lambda: None, "on_broken": lambda: broken.append("broken")}
        async with stdio_streams(wire, in_flight, **ends) as streams:
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


# --- the end of input ----------------------------------------------------------------------------------------------


async def test_the_end_of_a_file_waits_for_answers_that_are_on_their_way(pipes: Pipes, tmp_path: Path) -> None:
    pipes.read_from(tmp_path / "in", request(1))
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


async def test_the_end_of_a_file_does_not_wait_long_for_a_call_that_still_runs(pipes: Pipes, tmp_path: Path) -> None:
    pipes.read_from(tmp_path / "in", request(1))
    with anyio.fail_after(PATIENCE):
        async with pipes.streams() as (reader, _):
            await reader.receive()
            began = anyio.current_time()
            with pytest.raises(anyio.EndOfStream):
                await reader.receive()
            assert anyio.current_time() - began >= LAST_ANSWERS


async def test_the_end_of_a_file_does_not_wait_for_a_call_that_was_cancelled(pipes: Pipes, tmp_path: Path) -> None:
    pipes.read_from(tmp_path / "in", request(1), cancel(1))
    with anyio.fail_after(LAST_ANSWERS):
        async with pipes.streams() as (reader, _):
            assert len(await received(reader)) == 2


async def test_more_requests_than_there_is_room_for_are_all_read_from_a_file(pipes: Pipes, tmp_path: Path) -> None:
    pipes.read_from(tmp_path / "in", *(request(number, "file") for number in range(3 * AT_ONCE)))
    with anyio.fail_after(PATIENCE):
        async with pipes.streams() as (reader, writer):
            async for item in reader:
                await writer.send(answer(item.message.id))
    assert pipes.unread().count(b"\n") == 3 * AT_ONCE


async def test_nothing_is_written_after_a_client_has_closed_its_end(pipes: Pipes) -> None:
    pipes.say(request(1), request(2))
    os.close(pipes.to_server)
    with anyio.fail_after(LAST_ANSWERS):
        async with pipes.streams() as (reader, writer):
            assert len(await received(reader)) == 2
            await writer.send(answer(1))
            await writer.send(answer(2))
    assert pipes.events == ["end"]
    assert pipes.unread() == b""
    assert pipes.in_flight.size == 0


async def test_what_a_client_has_not_taken_is_dropped_when_it_has_closed_its_end(pipes: Pipes) -> None:
    pipes.say(request(1))
    with anyio.fail_after(PATIENCE):
        async with pipes.streams() as (reader, writer):
            await reader.receive()
            await writer.send(answer(1, "x" * FILE))
            os.close(pipes.to_server)
            assert not await received(reader)
    assert not pipes.unread().endswith(b"\n")
    assert pipes.in_flight.size == 0


async def test_requests_that_wait_for_room_are_dropped_when_the_client_has_closed_its_end(pipes: Pipes) -> None:
    pipes.say(*(request(number, "file") for number in range(2 * AT_ONCE)))
    with anyio.fail_after(PATIENCE):
        async with pipes.streams() as (reader, _):
            for _ in range(AT_ONCE):
                await reader.receive()
            os.close(pipes.to_server)
            assert not await received(reader)


# --- a client that does not read -----------------------------------------------------------------------------------


async def serve_files(reader: StdioReader, writer: StdioWriter, made: list[int | str]) -> None:
    """Answer each file at once, and nothing else."""
    async for item in reader:
        if isinstance(item, SessionMessage) and isinstance(item.message, JSONRPCRequest):
            made.append(item.message.id)
            if item.message.method == "file":
                await writer.send(answer(item.message.id, "x" * FILE))


async def test_answers_to_a_client_that_does_not_read_are_not_even_made(pipes: Pipes) -> None:
    made: list[int | str] = []
    with anyio.fail_after(PATIENCE):
        async with pipes.streams() as (reader, writer), anyio.create_task_group() as tasks:
            tasks.start_soon(serve_files, reader, writer, made)
            pipes.say(*(request(number, "file") for number in range(200)))
            await anyio.wait_all_tasks_blocked()
            assert len(made) == AT_ONCE
            assert pipes.in_flight.size <= (AT_ONCE + 1) * (FILE + OVERHEAD) + 200 * 2 * OVERHEAD
            tasks.cancel_scope.cancel()


async def test_while_answers_wait_for_the_client_other_requests_and_cancels_get_through(pipes: Pipes) -> None:
    made: list[int | str] = []
    with anyio.fail_after(PATIENCE):
        async with pipes.streams() as (reader, writer), anyio.create_task_group() as tasks:
            tasks.start_soon(serve_files, reader, writer, made)
            pipes.say(*(request(number, "file") for number in range(AT_ONCE + 2)), cancel(AT_ONCE), request("ping"))
            await anyio.wait_all_tasks_blocked()
            assert made == [*range(AT_ONCE), "ping"]
            collected = await anyio.to_thread.run_sync(collect, pipes, AT_ONCE + 1)
            tasks.cancel_scope.cancel()
    ids = [json.loads(line)["id"] for line in collected.splitlines()]
    assert ids == [*range(AT_ONCE), AT_ONCE + 1]


def collect(pipes: Pipes, lines: int) -> bytes:
    """Read until so many lines have come."""
    collected = bytearray()
    while collected.count(b"\n") < lines:
        collected += os.read(pipes.from_server, 1 << 16)
    return bytes(collected)


async def test_nothing_more_is_read_from_a_client_that_floods_and_does_not_read(pipes: Pipes) -> None:
    line = json.dumps({"jsonrpc": "2.0", "method": "ping", "params": {"x": "y" * MIB}, "id": 0})
    count = 3 * READ_AHEAD // MIB

    def feed() -> None:
        with contextlib.suppress(OSError):
            for number in range(count):
                pipes.say(line.replace('"id": 0', f'"id": {number}').encode())

    made: list[int | str] = []
    with anyio.fail_after(PATIENCE):
        async with pipes.streams() as (reader, writer), anyio.create_task_group() as tasks:
            tasks.start_soon(serve_files, reader, writer, made)
            tasks.start_soon(anyio.to_thread.run_sync, feed)
            while not pipes.in_flight.is_full:
                await anyio.sleep(0.01)
            await anyio.wait_all_tasks_blocked()
            assert len(made) <= READ_AHEAD // MIB + 1
            for number in range(count):
                while number not in made:
                    await anyio.sleep(0.001)
                await writer.send(answer(number))
            tasks.cancel_scope.cancel()
    assert pipes.in_flight.size <= OVERHEAD


async def test_that_a_client_leaves_is_noticed_while_nothing_is_read_from_it(pipes: Pipes) -> None:
    pipes.in_flight.message(2 * READ_AHEAD)
    pipes.say(request(1))
    with anyio.fail_after(PATIENCE):
        async with pipes.streams() as (reader, _), anyio.create_task_group() as tasks:
            tasks.start_soon(received, reader)
            await anyio.wait_all_tasks_blocked()
            assert not pipes.events
            os.close(pipes.to_server)
    assert pipes.events == ["end"]


async def test_a_client_that_closes_its_reading_end_is_noticed_though_nothing_is_written(pipes: Pipes) -> None:
    with anyio.fail_after(PATIENCE):
        async with pipes.streams():
            await anyio.wait_all_tasks_blocked()
            assert not pipes.events
            os.close(pipes.from_server)
            while not pipes.events:
                await anyio.sleep(0.001)
    assert pipes.events == ["broken"]


# --- ids -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("again", [7, "7"])
async def test_the_id_of_a_request_that_runs_is_refused_and_the_first_stays_cancellable(
    again: int | str, pipes: Pipes
) -> None:
    pipes.say(request(7), request(again), cancel(7))
    with anyio.fail_after(PATIENCE):
        async with pipes.streams() as (reader, _):
            first, cancelled = await reader.receive(), await reader.receive()
    assert isinstance(first, SessionMessage)
    assert isinstance(cancelled, SessionMessage)
    assert isinstance(first.message, JSONRPCRequest)
    assert isinstance(cancelled.message, JSONRPCNotification)
    refusal = pipes.hear()
    assert (refusal["id"], refusal["error"]["code"]) == (again, -32600)


async def test_an_id_may_be_used_again_when_its_request_has_ended(pipes: Pipes) -> None:
    pipes.say(request(7))
    with anyio.fail_after(PATIENCE):
        async with pipes.streams() as (reader, writer):
            await reader.receive()
            await writer.send(answer(7))
            pipes.say(request(7))
            await reader.receive()
            await writer.send(answer(7))
    assert pipes.unread().count(b"result") == 2


async def test_a_message_over_the_limit_is_answered_under_its_id_but_for_one_that_runs(pipes: Pipes) -> None:
    def feed() -> None:
        for identity in (1, 2):
            os.write(pipes.to_server, b'{"method":"tools/call","params":{"x":"')
            for _ in range(MAX_LINE // MIB + 1):
                os.write(pipes.to_server, b"x" * MIB)
            pipes.say(b'"},"jsonrpc":"2.0","id":%d}' % identity)
        pipes.say(request(3))

    pipes.say(request(1))
    with anyio.fail_after(PATIENCE):
        async with pipes.streams() as (reader, _), anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, feed)
            await reader.receive()
            await reader.receive()
    answers = [json.loads(line) for line in pipes.unread().splitlines()]
    assert [answer["id"] for answer in answers] == [None, 2]
    assert answers[1]["error"]["message"].endswith("send its data in several calls.")
