"""The engine's multiplexed stream, taken apart however it is cut."""

from __future__ import annotations

import struct
from pathlib import Path

import anyio
import anyio.abc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from observe import HOST_TIMEOUT
from taskcell.engine.docker.exec_stream import ExecStream, _connect_ssh

STDOUT, STDERR = 1, 2


class Pieces(anyio.abc.ByteStream):
    """Hands out what it was given, piece by piece, and then ends."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = [piece for piece in pieces if piece]
        self.sent = b""

    async def receive(self, max_bytes: int = 65536) -> bytes:
        await anyio.lowlevel.checkpoint()
        if not self._pieces:
            raise anyio.EndOfStream
        piece = self._pieces.pop(0)
        if len(piece) > max_bytes:
            self._pieces.insert(0, piece[max_bytes:])
        return piece[:max_bytes]

    async def send(self, item: bytes) -> None:
        self.sent += item

    async def send_eof(self) -> None: ...

    async def aclose(self) -> None: ...


def framed(stream: int, data: bytes) -> bytes:
    return struct.pack(">B3xI", stream, len(data)) + data


async def read_all(stream: ExecStream, size: int) -> bytes:
    read = b""
    while True:
        try:
            piece = await stream.receive(size)
        except anyio.EndOfStream:
            return read
        assert 0 < len(piece) <= size
        read += piece


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no fault
@given(
    written=st.lists(st.tuples(st.sampled_from([STDOUT, STDERR]), st.binary(max_size=40)), max_size=8),
    cuts=st.lists(st.integers(0, 500), max_size=8),
    first=st.integers(0, 20),
    size=st.integers(1, 64),
)
def test_stdout_comes_out_whole_and_in_order_however_the_bytes_are_cut(
    written: list[tuple[int, bytes]], cuts: list[int], first: int, size: int
) -> None:
    wire = b"".join(framed(stream, data) for stream, data in written)
    edges = sorted({min(cut, len(wire)) for cut in cuts} | {min(first, len(wire)), len(wire)})
    start, pieces = edges[0], []
    for end in edges[1:]:
        pieces.append(wire[start:end])
        start = end
    # What came along with the response's headers is in the buffer already.
    stream = ExecStream(Pieces(pieces), bytearray(wire[: edges[0]]))
    assert anyio.run(read_all, stream, size) == b"".join(data for kind, data in written if kind == STDOUT)


@pytest.mark.anyio
async def test_what_is_sent_goes_out_as_it_is() -> None:
    inner = Pieces([])
    await ExecStream(inner, bytearray()).send(b"frame")
    assert inner.sent == b"frame"


@pytest.mark.anyio
async def test_a_flood_of_stderr_is_not_kept() -> None:
    stream = ExecStream(Pieces([framed(STDERR, b"x" * 100_000), framed(STDOUT, b"ok")]), bytearray())
    assert await stream.receive() == b"ok"
    assert len(stream._stderr) < 10_000


@pytest.mark.anyio
async def test_an_ssh_ends_with_its_stream_though_it_does_not_hear_of_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text("#!/bin/sh\necho $$\nexec sleep 300\n")
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with anyio.fail_after(HOST_TIMEOUT):
        stream = await _connect_ssh("host", 22, "user")
        pid = int(await stream.receive())
        await anyio.aclose_forcefully(stream)
        while Path(f"/proc/{pid}").exists():
            await anyio.sleep(0.02)
