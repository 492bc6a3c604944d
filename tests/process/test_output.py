"""Head and tail, cut at characters, with the count of what is left out."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskcell.process.output import BYTES_PER_CHAR, Capture, page, share, stripped


def capture(limit: int, *pieces: tuple[int, bytes]) -> Capture:
    made = Capture(limit)
    for offset, data in pieces:
        made.add(offset, data)
    return made


def test_what_fits_is_shown_whole() -> None:
    shown = capture(10, (0, b"hello"), (5, b" you\n")).render(10)
    assert (shown.text, shown.omitted_bytes) == ("hello you\n", 0)


def test_nul_bytes_are_kept_and_bytes_that_are_not_utf8_become_replacement_characters() -> None:
    shown = capture(100, (0, b"a\x00b\xff\xfec")).render(6)
    assert (shown.text, shown.omitted_bytes) == ("a\x00b\ufffd\ufffdc", 0)


def test_a_character_that_comes_in_two_pieces_is_one_character() -> None:
    euro = "€".encode()
    assert capture(10, (0, euro[:1]), (1, euro[1:])).render(3).text == "€"


def test_too_much_output_keeps_head_and_tail_at_line_ends_and_says_how_much_is_left_out() -> None:
    lines = "".join(f"line {n:04d}\n" for n in range(1000)).encode()
    shown = capture(200, (0, lines)).render(len(lines))
    head, _, tail = shown.text.partition("[… ")
    assert head == "".join(f"line {n:04d}\n" for n in range(10))
    assert tail.partition("…]\n")[2] == "".join(f"line {n:04d}\n" for n in range(990, 1000))
    assert shown.omitted_bytes == len(lines) - 200
    assert f"[… {shown.omitted_bytes:,} bytes left out …]" in shown.text


def test_one_long_line_is_cut_at_characters() -> None:
    shown = capture(10, (0, "ä".encode() * 100)).render(200)
    assert shown.text == "äääää\n[… 180 bytes left out …]\näääää"


def test_a_tail_that_begins_inside_a_character_begins_with_the_next_one() -> None:
    data = "€".encode() * 100
    shown = capture(4, (0, data[:16]), (292, data[292:])).render(300)
    assert shown.text.endswith("…]\n€€")
    assert shown.omitted_bytes == 300 - 4 * 3


def test_bytes_after_the_total_are_not_shown() -> None:
    shown = capture(100, (0, b"before"), (6, b"after")).render(6)
    assert (shown.text, shown.omitted_bytes) == ("before", 0)


def test_a_second_gap_starts_the_tail_anew() -> None:
    shown = capture(8, (0, b"aaaa"), (100, b"bbbb"), (200, b"cccc")).render(204)
    assert shown.text == "aaaa\n[… 196 bytes left out …]\ncccc"


def test_stderr_keeps_its_share_beside_a_large_stdout() -> None:
    out, err = capture(100, (0, b"o" * 1000)), capture(100, (0, b"e" * 10))
    shown_out, shown_err = share(out, err, 1000, 10)
    assert shown_err.text == "e" * 10
    assert shown_out.text == "o" * 45 + "\n[… 910 bytes left out …]\n" + "o" * 45


def test_a_large_stderr_leaves_room_for_stdout() -> None:
    out, err = capture(100, (0, b"o" * 1000)), capture(100, (0, b"e" * 1000))
    shown_out, shown_err = share(out, err, 1000, 1000)
    assert shown_err.text.startswith("e" * 10 + "\n")
    assert shown_err.omitted_bytes == 980
    assert shown_out.text.startswith("o" * 40 + "\n")
    assert shown_out.omitted_bytes == 920


@given(data=st.binary(max_size=400), limit=st.integers(1, 60), cuts=st.lists(st.integers(0, 400), max_size=4))
def test_whatever_comes_in_the_answer_is_bounded_encodable_and_counts_every_byte(
    data: bytes, limit: int, cuts: list[int]
) -> None:
    made = Capture(limit)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, end in itertools.pairwise(edges):
        made.add(start, data[start:end])
    shown = made.render(len(data))
    shown.text.encode("utf-8")
    assert 0 <= shown.omitted_bytes <= len(data)
    assert len(shown.text) <= limit + len(f"\n[… {len(data):,} bytes left out …]\n")
    assert bool(shown.omitted_bytes) == ("bytes left out" in shown.text)


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([b"a", b"\n", "ä€😀".encode(), b"\xff", b"\xe2\x82", b"\x1b[1;3", b"1m", b"\x1b"])),
    st.data(),
)
def test_any_cutting_into_pages_gives_each_byte_once(pieces: list[bytes], data: st.DataObject) -> None:
    """Whatever was written when a page is asked for, and however long the pages are."""
    whole, plain = b"".join(pieces), data.draw(st.booleans())
    limit = data.draw(st.integers(200, 300) if plain else st.integers(1, 12))
    at, shown = 0, ""
    while at < len(whole):
        written = data.draw(st.integers(at, len(whole))) if data.draw(st.booleans()) else len(whole)
        over = written == len(whole)
        made = page(whole[at : min(written, at + limit * BYTES_PER_CHAR)], at, limit, is_last=over, plain=plain)
        assert at <= made.end <= written
        assert len(made.text) <= limit
        assert not (over and made.end == at)
        at, shown = made.end, shown + made.text
    if not plain:
        assert shown.encode().replace("\ufffd".encode(), b"") == whole.decode("utf-8", "ignore").encode()


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("\x1b[1;31mred\x1b[0m\r\n", "red\n"),
        ("\x1b]0;a title\x07x\x1b]8;;http://x\x1b\\y", "xy"),
        ("\x1b(Bz\x1b7q\x1bPdevice\x1b\\w\x1b=v\x1bMu", "zqwvu"),
        ("50%\r100%\n", "50%\r100%\n"),
        ("a\x1b", "a\x1b"),
    ],
)
def test_control_sequences_are_left_out(written: str, plain: str) -> None:
    assert stripped(written) == plain


def test_hostile_sequences_take_no_long_time() -> None:
    began = time.monotonic()
    for text in ("\x1b]" * 200_000, "\x1bP" * 200_000, "\x1b[" + "0" * 400_000, "\x1b[0" * 200_000):
        stripped(text)
    assert time.monotonic() - began < 10


def test_the_line_about_what_is_left_out_says_where_the_whole_is() -> None:
    shown = capture(10, (0, b"x" * 100)).render(100, None, "taskcell://whole")
    assert "[… 90 bytes left out; the whole: taskcell://whole …]" in shown.text
