"""Streams that tell their end from a break, over a carrier that cannot."""

from __future__ import annotations

import socket

import anyio
import pytest

from proxied import read_all
from supervisor_driver import PATIENCE
from taskcell.byte_streams import PieceStream, splice_pieces
from taskcell.raw_stream import RawStream

pytestmark = pytest.mark.anyio


def joined() -> tuple[RawStream, RawStream]:
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
    return RawStream(ends[0]), RawStream(ends[1])


@pytest.mark.parametrize("ends", [True, False])
async def test_a_carrier_that_closes_once_its_peer_has_ended_is_a_reset_unless_both_have(ends: bool) -> None:
    carrier, peer = joined()
    inner, server = joined()
    broken: list[bool] = []

    async def carry() -> None:
        try:
            await splice_pieces(PieceStream(carrier), inner)
            broken.append(False)
        except anyio.BrokenResourceError:
            broken.append(True)

    async with carrier, peer, inner, server:
        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as group:
                group.start_soon(carry)
                await peer.send(b"\0\0\0\x01x" + bytes(4))
                assert await read_all(server) == b"x"
                if ends:
                    await server.send_eof()
                    assert await peer.receive() == bytes(4)
                await peer.aclose()
    assert broken == [not ends]
