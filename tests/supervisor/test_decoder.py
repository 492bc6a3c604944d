"""Frames that lie about their contents: each is refused, and told why."""

from __future__ import annotations

import struct

import pytest

from taskcell.errors import ProtocolError
from taskcell.supervisor import events
from taskcell.supervisor.decoder import Decoder
from taskcell.supervisor.protocol import Reason

ENDING = struct.pack("<BiBIQQQQQQII", 0, 3, 0, 0, 1, 2, 3, 4, 5, 6, 0, 2)
CUT_SHORT, LONG_STRING = "is cut short", "string from .* is longer than"


def frame(kind: int, body: bytes) -> bytes:
    return struct.pack("<IBI", 5 + len(body), kind, 7) + body


def number(value: int) -> bytes:
    return struct.pack("<I", value)


def string(value: bytes) -> bytes:
    return number(len(value)) + value


def test_an_end_carries_its_report_as_it_came() -> None:
    (found,) = Decoder().feed(frame(0x86, ENDING + number(4) + b"a\0\xffb"))
    assert found == events.Exit(7, Reason.ITSELF, 3, 0, 0, 1, 2, 3, 4, 5, 6, 0, 2, 4, b"a\0\xffb")


def test_a_report_that_is_too_long_for_the_end_is_told_by_its_size() -> None:
    (found,) = Decoder().feed(frame(0x86, ENDING + number(1 << 20)))
    assert isinstance(found, events.Exit)
    assert (found.report_size, found.report) == (1 << 20, b"")


def test_a_state_carries_a_tag_a_size_and_a_piece() -> None:
    (found,) = Decoder().feed(frame(0x8E, string(b"tag") + number(9) + b"piece"))
    assert found == events.LastState(7, b"tag", 9, b"piece")


def test_a_count_of_all_ones_is_no_number_but_unknown() -> None:
    unknown = number((1 << 32) - 1)
    (ended,) = Decoder().feed(frame(0x86, ENDING[:-8] + unknown + number(0) + number(0)))
    (killed,) = Decoder().feed(frame(0x87, b"\1" + unknown + bytes(16)))
    (listing,) = Decoder().feed(frame(0x89, b"\1" + number(1) + bytes(67) + unknown + unknown + string(b"")))
    assert isinstance(ended, events.Exit)
    assert isinstance(listing, events.Listing)
    assert listing.entries[0].alive is None
    assert (ended.descendants, killed, listing.entries[0].survivors) == (
        None,
        events.Killed(7, Reason.TIMEOUT, None, 0, 0),
        None,
    )


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (frame(0x86, ENDING[:-1]), CUT_SHORT),
        (frame(0x86, ENDING + b"\1\0\0"), CUT_SHORT),
        (frame(0x86, b"\4" + ENDING[1:] + number(0)), "bad value: 4 is not a valid Reason"),
        (frame(0x8E, number(3) + b"ta"), LONG_STRING),
        (frame(0x8E, number((1 << 32) - 1)), LONG_STRING),
        (frame(0x8E, string(b"tag") + b"\1\0\0"), CUT_SHORT),
        (frame(0x8D, string(b"problem") + b"\0"), "bytes left over"),
        (frame(0x84, struct.pack("<BQ", 0, 0)), "bad value: 0 is not a valid Stream"),
        (frame(0x89, b"\1" + number((1 << 32) - 1)), CUT_SHORT),
        (frame(0xEF, b""), "unknown type 0xef"),
        (struct.pack("<IBI", 4, 0x88, 7), "frame of 4 bytes"),
        (struct.pack("<IBI", (1 << 17) + 1, 0x88, 7), "frame of 131073 bytes"),
    ],
)
def test_a_frame_that_does_not_parse_exactly_is_refused_with_its_reason(data: bytes, why: str) -> None:
    with pytest.raises(ProtocolError, match=why):
        list(Decoder().feed(data))
