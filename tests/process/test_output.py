"""Head and tail within a limit, cut at characters, with the count of what is left out."""

from __future__ import annotations

import itertools
import time
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from taskcell.process.output import BYTES_PER_CHAR, Capture, page, share
from taskcell.process.terminal_text import displayed

FRAMES = "".join(f"\rDownloading {i}/5000" for i in range(5001)).encode()
PIECES = [
    b"a", b"word ", b"\n", "ä€😀".encode(), b"\xff", b"\xe2\x82", b"\0", b"\r", b"\r\n", b"\b", b"\t", b"\x1b[1;3",
    b"1m", b"\x1b", b"\x1b[K", b"\x1b]0;t\x07", "\x85\x9b".encode(),
]  # fmt: skip


def capture(limit: int, *pieces: tuple[int, bytes]) -> Capture:
    made = Capture(limit)
    for offset, data in pieces:
        made.add(offset, data)
    return made


def line(omitted: int) -> str:
    return f"[… {omitted:,} bytes left out …]\n"


def controls(text: str) -> set[str]:
    return {character for character in text if unicodedata.category(character) == "Cc"}


def test_what_fits_is_shown_whole() -> None:
    text = capture(10, (0, b"hello"), (5, b" you\n")).render(10, 10)
    assert (text.text, text.omitted_bytes) == ("hello you\n", 0)


def test_nul_bytes_are_shown_as_a_symbol_and_bytes_that_are_not_utf8_as_replacement_characters() -> None:
    text = capture(100, (0, b"a\x00b\xff\xfec")).render(6, 100)
    assert (text.text, text.omitted_bytes) == ("a␀b\ufffd\ufffdc", 0)


def test_a_character_that_comes_in_two_pieces_is_one_character() -> None:
    euro = "€".encode()
    assert capture(10, (0, euro[:1]), (1, euro[1:])).render(3, 10).text == "€"


def test_too_much_output_keeps_head_and_tail_at_line_ends_and_says_how_much_is_left_out() -> None:
    lines = "".join(f"line {n:04d}\n" for n in range(1000)).encode()
    text = capture(233, (0, lines)).render(len(lines), 233)
    head, _, tail = text.text.partition("[… ")
    assert head == "".join(f"line {n:04d}\n" for n in range(10))
    assert tail.partition("…]\n")[2] == "".join(f"line {n:04d}\n" for n in range(990, 1000))
    assert text.omitted_bytes == len(lines) - 200
    assert line(text.omitted_bytes) in text.text
    assert len(text.text) <= 233


def test_one_long_line_is_cut_at_characters() -> None:
    limit = len(line(200)) + 1 + 10
    text = capture(limit, (0, "ä".encode() * 100)).render(200, limit)
    assert text.text == f"äääää\n{line(180)}äääää"


def test_a_tail_that_begins_inside_a_character_begins_with_the_next_one() -> None:
    data = "€".encode() * 100
    limit = len(line(300)) + 1 + 4
    text = capture(limit, (0, data[:16]), (292, data[292:])).render(300, limit)
    assert text.text == f"€€\n{line(300 - 4 * 3)}€€"


def test_bytes_after_the_total_are_not_shown() -> None:
    text = capture(100, (0, b"before"), (6, b"after")).render(6, 100)
    assert (text.text, text.omitted_bytes) == ("before", 0)


def test_a_second_gap_starts_the_tail_anew() -> None:
    text = capture(50, (0, b"aaaa"), (100, b"bbbb"), (200, b"cccc")).render(204, 50)
    assert text.text == f"aaaa\n{line(196)}cccc"


def test_stderr_keeps_its_share_beside_a_large_stdout() -> None:
    out, err = capture(200, (0, b"o" * 1000)), capture(200, (0, b"e" * 10))
    shown_out, shown_err = share(out, err, (1000, 10), 200)
    assert shown_err.text == "e" * 10
    half = (200 - 10 - len(line(1000)) - 1) // 2
    assert shown_out.text == "o" * half + f"\n{line(1000 - 2 * half)}" + "o" * half


def test_a_large_stderr_leaves_room_for_stdout() -> None:
    out, err = capture(500, (0, b"o" * 1000)), capture(500, (0, b"e" * 1000))
    shown_out, shown_err = share(out, err, (1000, 1000), 500)
    beside = len(line(1000)) + 1
    for_err, for_out = (100 - beside) // 2, (500 - len(shown_err.text) - beside) // 2
    assert shown_err.text.startswith("e" * for_err + "\n")
    assert shown_err.omitted_bytes == 1000 - 2 * for_err
    assert shown_out.text.startswith("o" * for_out + "\n")
    assert shown_out.omitted_bytes == 1000 - 2 * for_out
    assert len(shown_out.text) + len(shown_err.text) <= 500


def test_an_overwritten_line_counts_as_what_is_left_of_it() -> None:
    text = capture(50_000, (0, FRAMES)).render(len(FRAMES), 1000)
    assert (text.text, text.omitted_bytes) == ("Downloading 5000/5000", 0)
    installed = FRAMES + b"\n" + b"".join(b"Installing %d\n" % n for n in range(1000))
    text = capture(50_000, (0, installed)).render(len(installed), 1000)
    head, _, tail = text.text.partition("[… ")
    assert head.startswith("Downloading 5000/5000\nInstalling 0\nInstalling 1\n")
    assert tail.endswith("Installing 998\nInstalling 999\n")
    kept = len(FRAMES) + 1 + len(head) + len(tail.partition("]\n")[2]) - len("Downloading 5000/5000\n")
    assert text.omitted_bytes == len(installed) - kept


def test_a_gap_in_an_overwritten_line_leaves_its_first_and_its_last_state() -> None:
    text = capture(1000, (0, FRAMES[:4000]), (len(FRAMES) - 50, FRAMES[-50:])).render(len(FRAMES), 1000)
    assert text.text.startswith("Downloading 19")
    assert text.text.endswith("Downloading 5000/5000")
    assert text.omitted_bytes == len(FRAMES) - 4050


@pytest.mark.parametrize(
    ("written", "begun"),
    [
        (b"abc", 0),
        ("ab€".encode()[:-1], 2),
        (b"ab\x1b[31", 4),
        (b"ab\x1b]0;\xc3\xa4", 6),
        (b"ab\x1b[31m", 0),
        (b"a\r", 0),
    ],
)
def test_what_is_begun_at_the_end_is_left_for_the_next_answer(written: bytes, begun: int) -> None:
    assert capture(100, (0, written)).whole(len(written)) == len(written) - begun
    assert capture(100, (0, b"x"), (90, written)).whole(90 + len(written)) == 90 + len(written) - begun


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(PIECES), max_size=120).map(b"".join) | st.binary(max_size=400),
    st.integers(45, 120),
    st.lists(st.integers(0, 400), max_size=4),
    st.booleans(),
)
@example(b"\t\r\x1b[250Gx" * 20, 60, [], False)
def test_whatever_comes_in_the_answer_is_bounded_encodable_and_counts_every_byte(
    data: bytes, limit: int, cuts: list[int], ansi: bool
) -> None:
    made = Capture(limit)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, end in itertools.pairwise(edges):
        made.add(start, data[start:end])
    text = made.render(len(data), limit, ansi=ansi)
    text.text.encode("utf-8")
    assert controls(text.text) <= ({"\t", "\n", "\x1b"} if ansi else {"\t", "\n"})
    assert 0 <= text.omitted_bytes <= len(data)
    assert len(text.text) <= limit
    assert bool(text.omitted_bytes) == ("bytes left out" in text.text)
    assert 0 <= len(data) - made.whole(len(data)) <= 400


def pages(whole: bytes, limit: int, ansi: bool, data: st.DataObject) -> list[str]:
    """All pages of some output, whatever was written when each of them is asked for."""
    at, found = 0, []
    while at < len(whole):
        written = data.draw(st.integers(at, len(whole))) if data.draw(st.booleans()) else len(whole)
        over = written == len(whole)
        made = page(whole[at : min(written, at + limit * BYTES_PER_CHAR)], at, limit, is_last=over, ansi=ansi)
        assert at <= made.end <= written
        assert len(made.text) <= limit
        assert not (over and made.end == at)
        at = made.end
        found.append(made.text)
    return found


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([b"a", b"\n", b"\t", "ä€😀".encode(), b"\xff", b"\xe2\x82"])),
    st.integers(1, 12),
    st.data(),
)
def test_any_cutting_into_pages_gives_each_byte_once(pieces: list[bytes], limit: int, data: st.DataObject) -> None:
    whole = b"".join(pieces)
    text = "".join(pages(whole, limit, data.draw(st.booleans()), data))
    assert text.encode().replace("\ufffd".encode(), b"") == whole.decode("utf-8", "ignore").encode()


@settings(deadline=None)
@given(st.lists(st.sampled_from(PIECES)), st.data())
def test_pages_cut_no_sequence_in_two_and_show_no_control_character(pieces: list[bytes], data: st.DataObject) -> None:
    whole, ansi = b"".join(pieces), data.draw(st.booleans())
    found = pages(whole, data.draw(st.integers(200, 300)), ansi, data)
    assert controls("".join(found)) <= ({"\t", "\n", "\x1b"} if ansi else {"\t", "\n"})
    if b"\r" not in whole and b"\b" not in whole and b"\x1b[K" not in whole:
        # Nothing is overwritten, so that what a page shows depends on its own bytes alone.
        assert "".join(found) == displayed(whole.decode("utf-8", "surrogateescape"), ansi=ansi)


def test_a_page_of_frames_is_one_line_and_the_next_one_goes_on_where_it_ended() -> None:
    half = len(FRAMES) // 2
    first = page(FRAMES[:half], 0, 50_000, is_last=False, ansi=False)
    assert (len(first.text.splitlines()), first.end) == (1, half)
    second = page(FRAMES[half:], half, 50_000, is_last=True, ansi=False)
    assert (second.text, second.end) == ("Downloading 5000/5000", len(FRAMES))


def test_a_carriage_return_and_its_newline_may_come_in_two_pages() -> None:
    first = page(b"one\r", 0, 100, is_last=False, ansi=False)
    second = page(b"\ntwo", first.end, 100, is_last=True, ansi=False)
    assert first.text + second.text == "one\ntwo"


def test_a_long_output_is_soon_cut() -> None:
    began = time.thread_time()
    for data in (b"\r\b\n" * 60_000, b"\x1b[31m\n" * 30_000, b"x\b" * 100_000, b"\0" * 200_000):
        capture(50_000, (0, data)).render(len(data), 50_000)
        page(data, 0, 50_000, is_last=False, ansi=True)
    assert time.thread_time() - began < 30
