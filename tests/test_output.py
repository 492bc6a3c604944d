"""Head and tail, cut at characters, with the count of what is left out."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from taskcell.output import Capture, share


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
