"""Frames that lie about their contents: each is refused, and told why."""

from __future__ import annotations

import struct

import pytest

from taskcell.errors import ProtocolError
from taskcell.supervisor import events
from taskcell.supervisor.decoder import Decoder
from taskcell.supervisor.protocol import Reason

ENDING = struct.pack("<BiBIQQQQQQI", 0, 3, 0, 0, 1, 2, 3, 4, 5, 6, 0)
CUT_SHORT, LONG_STRING, LONG_LIST = "is cut short", "string from .* is longer than", "list from .* is longer than"


def frame(kind: int, body: bytes) -> bytes:
    return struct.pack("<IBI", 5 + len(body), kind, 7) + body


def number(value: int) -> bytes:
    return struct.pack("<I", value)


def string(value: bytes) -> bytes:
    return number(len(value)) + value


def test_an_end_carries_its_directory_and_environment() -> None:
    body = ENDING + string(b"/tmp") + number(3) + string(b"A=1") + string(b"") + string(b"B=\xff")
    (found,) = Decoder().feed(frame(0x86, body))
    assert found == events.Exit(7, Reason.ITSELF, 3, 0, 0, 1, 2, 3, 4, 5, 6, 0, b"/tmp", (b"A=1", b"", b"B=\xff"))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (frame(0x86, ENDING[:-1]), CUT_SHORT),
        (frame(0x86, ENDING + b"\1\0\0"), CUT_SHORT),
        (frame(0x86, ENDING + number(3) + b"/a"), LONG_STRING),
        (frame(0x86, ENDING + number((1 << 32) - 1)), LONG_STRING),
        (frame(0x86, ENDING + string(b"/") + b"\0"), CUT_SHORT),
        (frame(0x86, ENDING + string(b"/") + number(2) + string(b"A=1")[:-1]), LONG_LIST),
        (frame(0x86, ENDING + string(b"/") + number((1 << 32) - 1) + bytes(64)), LONG_LIST),
        (frame(0x86, ENDING + string(b"/") + number(2) + string(b"A=1") + b"\1\0\0"), CUT_SHORT),
        (frame(0x86, ENDING + string(b"/") + number(2) + string(b"A=1") + number(2) + b"B"), LONG_STRING),
        (frame(0x86, ENDING + string(b"/") + number(1) + string(b"A=1") + b"\0"), "bytes left over"),
        (frame(0x86, b"\3" + ENDING[1:] + string(b"/") + number(0)), "bad value: 3 is not a valid Reason"),
        (frame(0x84, struct.pack("<BQ", 0, 0)), "bad value: 0 is not a valid Stream"),
        (frame(0x89, b"\1" + number((1 << 32) - 1)), CUT_SHORT),
        (frame(0x8F, b""), "unknown type 0x8f"),
        (struct.pack("<IBI", 4, 0x88, 7), "frame of 4 bytes"),
        (struct.pack("<IBI", (1 << 17) + 1, 0x88, 7), "frame of 131073 bytes"),
    ],
)
def test_a_frame_that_does_not_parse_exactly_is_refused_with_its_reason(data: bytes, why: str) -> None:
    with pytest.raises(ProtocolError, match=why):
        list(Decoder().feed(data))
