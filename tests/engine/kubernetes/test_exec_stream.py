"""The byte stream of a pods/exec, against a WebSocket on loopback that sends what a test wants."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import anyio
import anyio.abc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.protocol import State
from websockets.uri import parse_uri
from websockets.utils import apply_mask

from taskcell.engine.kubernetes.exec_stream import EXEC_PIECE, MESSAGE_MAX, PodExecStream

pytestmark = pytest.mark.anyio


class Pipe(anyio.abc.ByteStream):
    """Gives pieces one after the other, and keeps what is sent."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces, self.sent = list(pieces), b""

    async def receive(self, max_bytes: int = 65536) -> bytes:
        await anyio.lowlevel.checkpoint()
        if not self.pieces:
            raise anyio.EndOfStream
        return self.pieces.pop(0)

    async def send(self, item: bytes) -> None:
        self.sent += item

    async def send_eof(self) -> None: ...

    async def aclose(self) -> None: ...


def opened(pipe: Pipe, came: bytes = b"") -> PodExecStream:
    """A stream over a pipe. `came`: what the server sent together with its answer to the upgrade."""
    websocket = ClientProtocol(parse_uri("wss://127.0.0.1"), state=State.OPEN, max_size=MESSAGE_MAX)
    websocket.receive_data(came)
    return PodExecStream(pipe, websocket)


def message(body: bytes, kind: int = 2, *, is_last: bool = True) -> bytes:
    size = len(body)
    head = (
        bytes([size])
        if size < 126
        else b"\x7e" + struct.pack(">H", size)
        if size < 1 << 16
        else b"\x7f" + struct.pack(">Q", size)
    )
    return bytes([is_last << 7 | kind]) + head + body


def unmasked(frames: bytes) -> Iterator[tuple[int, bytes]]:
    """The kind and the body of each of a client's frames."""
    while frames:
        size, at = frames[1] & 0x7F, 2
        if size > 125:
            at = 4 if size == 126 else 10
            size = int.from_bytes(frames[2:at], "big")
        mask, body = frames[at : at + 4], frames[at + 4 : at + 4 + size]
        yield frames[0] & 0x0F, apply_mask(body, mask)
        frames = frames[at + 4 + size :]


async def everything(stream: PodExecStream) -> bytes:
    data = b""
    try:
        while True:
            data += await stream.receive()
    except anyio.EndOfStream:
        return data


@pytest.mark.parametrize("cut", [1, 2, 3, 5, 1000])
async def test_output_arrives_however_it_is_cut(cut: int) -> None:
    whole = message(b"\1" + b"a" * 10) + message(b"\1" + b"b" * 300) + message(b"\1" + b"c" * 70_000) + message(b"", 8)
    every_head = 400  # bytes that hold the beginnings of all three
    pieces = [whole[at : min(at + cut, every_head)] for at in range(0, every_head, cut)]
    pieces.append(whole[every_head:])
    assert await everything(opened(Pipe(*pieces))) == b"a" * 10 + b"b" * 300 + b"c" * 70_000


async def test_a_message_in_pieces_names_its_channel_once() -> None:
    pieces = (
        message(b"\2no ", is_last=False) + message(b"socket", 0) + message(b"\1o", is_last=False) + message(b"k", 0)
    )
    stream = opened(Pipe(pieces + message(b"", 8)))
    assert await everything(stream) == b"ok"
    assert stream.said == b"no socket"


async def test_what_came_with_the_upgrade_counts() -> None:
    assert await everything(opened(Pipe(message(b"\1b")), message(b"\1a"))) == b"ab"


async def test_stderr_and_the_end_are_kept_apart() -> None:
    stream = opened(Pipe(message(b"\2no socket"), message(b"\3{}"), message(b"\1out"), message(b"", 8)))
    assert await everything(stream) == b"out"
    assert stream.said == b"no socket{}"


async def test_what_came_before_the_close_is_handed_out_and_nothing_is_sent_after_it() -> None:
    stream = opened(Pipe(message(b"\1last") + message(b"", 8)))
    assert await everything(stream) == b"last"
    with pytest.raises(anyio.BrokenResourceError):
        await stream.send(b"late")


async def test_a_ping_is_answered_with_what_it_holds() -> None:
    pipe = Pipe(message(b"are you there", 9), message(b"\1yes"))
    assert await opened(pipe).receive() == b"yes"
    assert list(unmasked(pipe.sent)) == [(10, b"are you there")]


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x82\x7f" + struct.pack(">Q", 1 << 40),  # a message without end is not waited for
        b"\x83\x01x",  # a kind of message that there is not
        b"\x00\x02\1x",  # the rest of nothing
        b"HTTP/1.1 500 Internal Server Error\r\n\r\n" + bytes(100),
    ],
)
async def test_garbage_ends_the_stream_after_what_was_said_before_it(garbage: bytes) -> None:
    stream = opened(Pipe(message(b"\1said") + garbage))
    assert await stream.receive() == b"said"
    with pytest.raises(anyio.BrokenResourceError):
        await stream.receive()


@given(body=st.binary(max_size=3 * EXEC_PIECE))
def test_what_is_sent_arrives_in_messages_that_servers_take(body: bytes) -> None:
    pipe = Pipe()
    anyio.run(opened(pipe).send, body)
    sent = list(unmasked(pipe.sent))
    assert b"".join(piece[1:] for _, piece in sent) == body
    assert all(kind == 2 and piece[0] == 0 and len(piece) <= EXEC_PIECE + 1 for kind, piece in sent)
