"""The byte stream of a pods/exec, against a WebSocket on loopback that sends what a test wants."""

from __future__ import annotations

import struct

import anyio
import anyio.abc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskcell.engine.kubernetes import exec_stream
from taskcell.engine.kubernetes.exec_stream import PodExecStream

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


def message(body: bytes, kind: int = 2) -> bytes:
    size = len(body)
    head = (
        bytes([size])
        if size < 126
        else b"\x7e" + struct.pack(">H", size)
        if size < 1 << 16
        else b"\x7f" + struct.pack(">Q", size)
    )
    return bytes([0x80 | kind]) + head + body


def unmasked(frame: bytes) -> tuple[int, bytes]:
    """The kind and the body of a client's frame."""
    size, at = frame[1] & 0x7F, 2
    if size > 125:
        at = 4 if size == 126 else 10
        size = int.from_bytes(frame[2:at], "big")
    mask, body = frame[at : at + 4], frame[at + 4 :]
    assert len(body) == size
    return frame[0] & 0x0F, bytes(byte ^ mask[index % 4] for index, byte in enumerate(body))


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
    pieces = [whole[at : at + cut] for at in range(0, len(whole), cut)]
    assert await everything(PodExecStream(Pipe(*pieces), b"")) == b"a" * 10 + b"b" * 300 + b"c" * 70_000


async def test_what_came_with_the_upgrade_counts() -> None:
    assert await everything(PodExecStream(Pipe(message(b"\1b")), message(b"\1a"))) == b"ab"


async def test_stderr_and_the_end_are_kept_apart() -> None:
    stream = PodExecStream(Pipe(message(b"\2no socket"), message(b"\3{}"), message(b"\1out"), message(b"", 8)), b"")
    assert await everything(stream) == b"out"
    assert stream.said == b"no socket{}"


async def test_a_ping_is_answered_with_what_it_holds() -> None:
    pipe = Pipe(message(b"are you there", 9), message(b"\1yes"))
    assert await PodExecStream(pipe, b"").receive() == b"yes"
    assert unmasked(pipe.sent) == (10, b"are you there")


async def test_a_message_without_end_is_not_waited_for() -> None:
    with pytest.raises(anyio.BrokenResourceError):
        await PodExecStream(Pipe(b"\x82\x7f" + struct.pack(">Q", 1 << 40)), b"").receive()


@given(body=st.binary(max_size=70_000), mask=st.binary(min_size=4, max_size=4))
def test_what_is_sent_can_be_read(body: bytes, mask: bytes) -> None:
    assert unmasked(exec_stream._frame(2, body, mask)) == (2, body)
