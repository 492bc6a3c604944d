"""What a terminal would show of output, held against a simple model of one of its lines."""

from __future__ import annotations

import re
import time
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from taskcell.process.terminal_text import SEQUENCE_MAX, after_sequence, displayed, unfinished

FRAMES = "".join(f"\rDownloading {i}/5000" for i in range(5001))
PIECES = (
    "a", "bc", "0123456789", " ", "ä", "€", "下", "\u0301", "\udcff", "\t", "\r", "\b", "\n", "\r\n", "\x00", "\x07",
    "\x0b", "\x1f", "\x7f", "\x85", "\x9b", "\x1b", "\x1b[K", "\x1b[1K", "\x1b[2K", "\x1b[3D", "\x1b[2C", "\x1b[4G",
    "\x1b[P", "\x1b[2X", "\x1b[@", "\x1b[31m", "\x1b[0m", "\x9b1m", "\x1b[A", "\x1b[5;1H", "\x1b[?25l", "\x1b7",
    "\x1b]0;title\x07", "\x1b]8;;x\x1b\\", "\x1bPq\x1b\\", "\x1b(B", "\x1b[1;3",
)  # fmt: skip
TEXTS = st.lists(st.sampled_from(PIECES), max_size=40).map("".join)


def controls(text: str) -> set[str]:
    return {character for character in text if unicodedata.category(character) == "Cc"}


def on_a_terminal(line: str) -> str:
    """The same line, told by one dictionary of columns: each character is as wide as a cell."""
    cells: dict[int, str] = {}
    at = 0
    for token in re.findall(r"\x1b\[[0-9]*[KDCG]|[^\x1b]", line):
        if token == "\r":
            at = 0
        elif token == "\b":
            at = max(0, at - 1)
        elif token == "\t":
            at += 8 - at % 8
        elif token[0] == "\x1b":
            number = int(token[2:-1] or 0)
            if token[-1] == "C":
                at += max(1, number)
            elif token[-1] == "D":
                at = max(0, at - max(1, number))
            elif token[-1] == "G":
                at = max(1, number) - 1
            else:
                erased = {0: range(at, 999), 1: range(at + 1), 2: range(999)}[number]
                cells = {column: cell for column, cell in cells.items() if column not in erased}
        else:
            cells[at] = token
            at += 1
    return "".join(cells.get(column, " ") for column in range(max(cells, default=-1) + 1)).rstrip(" ")


@given(
    st.lists(
        st.sampled_from(
            ["a", "b", "cde", "   ", "\r", "\b", "\t", "\x1b[K", "\x1b[1K", "\x1b[2K", "\x1b[2D", "\x1b[3C", "\x1b[5G"]
        ),
        max_size=30,
    ).map("".join)
)
@example("abc\rx")
@example("Downloading 10%\rdone\x1b[K")
@example("abc\b\b\b\bx\x1b[1Ky")
@example("a\tb\rX\tY")
def test_an_overwritten_line_is_what_a_terminal_shows_at_its_end(line: str) -> None:
    # A tab that nothing overwrites stays one: a file's columns are not to become blanks.
    assert displayed(line + "\r\b", ansi=False).expandtabs(8).rstrip(" ") == on_a_terminal(line)
    assert re.sub("\x1b\\[[0-9]*m", "", displayed(line, ansi=True)) == displayed(line, ansi=False)


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("\x1b[1;31mred\x1b[0m\r\n", "red\n"),
        ("\x1b]0;a title\x07x\x1b]8;;http://x\x1b\\y", "xy"),
        ("\x1b(Bz\x1b7q\x1bPdevice\x1b\\w\x1b=v\x1bMu", "zqwvu"),
        ("50%\r100%\n", "100%\n"),
        ("100%\r50%\n", "50%%\n"),
        ("100%\r\x1b[K50%\n", "50%\n"),
        ("a\x1b", "a"),
        ("\x1b[31", "[31"),
        ("N\bNA\bAM\bME\bE", "NAME"),
        ("_\bu_\bn", "un"),
        ("Password: \b\b\b\b", "Password:"),
        ("a\x00b\x07c\x85d\x9fe", "a␀bcde"),
        ("PATH=/bin\x00HOME=/\x00", "PATH=/bin␀HOME=/␀"),
        ("one\ttwo\x1b[K\n", "one\ttwo\n"),
        ("one\ttwo\r         2\n", "         2o\n"),
        ("下载中\r完成", "完成中"),
        ("下载中\rx", "x 载中"),
        ("cafe\u0301\rC", "Cafe\u0301"),
        ("aaaa\r\x1b[6;1Hbb", "aaaabb"),
        ("loading…   \r          \rdone", "done"),
        ("\udcff\udcfe", "\ufffd\ufffd"),
        ("\x1b]no end\n\x1b[1mtext\n", "]no end\ntext\n"),
    ],
)
def test_examples_without_escape_sequences(written: str, plain: str) -> None:
    assert displayed(written, ansi=False) == plain


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("\x1b[1;31mred\x1b[0m\r\n", "\x1b[1;31mred\x1b[0m\n"),
        ("\x1b]0;a title\x07x", "\x1b]0;a title\x1b\\x"),
        ("\x9b31mx\x85", "\x1b[31mx"),
        ("\x1b[32m 10%\x1b[0m\r\x1b[32m 20%\x1b[0m\n", "\x1b[0m\x1b[32m 20%\x1b[0m\n"),
        ("ab\r\x1b[1mX\x1b[0m", "\x1b[1mX\x1b[0mb\x1b[0m"),
        ("\x1b[?25lx\ry", "y"),
        ("top\r\x1b[2;1Hrow\b", "top\x1b[2;1Hrow"),
    ],
)
def test_examples_with_escape_sequences(written: str, kept: str) -> None:
    assert displayed(written, ansi=True) == kept


@settings(deadline=None)
@given(TEXTS)
def test_no_control_character_leaves_but_tab_newline_and_where_wanted_escape(text: str) -> None:
    assert controls(displayed(text, ansi=False)) <= {"\t", "\n"}
    assert controls(displayed(text, ansi=True)) <= {"\t", "\n", "\x1b"}
    displayed(text, ansi=True).encode()
    assert displayed(text, ansi=False).count("\n") == text.count("\n")


@given(TEXTS)
def test_plain_text_is_shown_as_it_is_and_showing_it_again_changes_nothing(text: str) -> None:
    once = displayed(text, ansi=False)
    assert displayed(once, ansi=False) == once
    if not controls(text) - {"\t", "\n"} and "\udcff" not in text:
        assert once == text


@given(TEXTS, st.integers(0, 60))
def test_what_is_begun_is_found_and_a_cut_in_a_sequence_moves_behind_it(text: str, at: int) -> None:
    at = min(at, len(text))
    begun = unfinished(text)
    assert 0 <= begun <= min(len(text), SEQUENCE_MAX)
    assert begun == 0 or text[len(text) - begun] in "\x1b\x9b"
    assert at <= after_sequence(text, at) <= len(text)
    assert after_sequence("ab\x1b[31mcd", 4) == 7


def test_five_thousand_frames_are_one_line_and_soon_shown() -> None:
    began = time.thread_time()
    assert displayed(FRAMES, ansi=False) == "Downloading 5000/5000"
    assert displayed(FRAMES.replace("\r", "\r\x1b[K\x1b[32m"), ansi=True).endswith("Downloading 5000/5000")
    assert time.thread_time() - began < 5


HOSTILE = {
    "overwriting": "x\b" * 90_000,
    "strings without end": "\x1b]" * 90_000,
    "device strings": "\x1bP" * 90_000,
    "a long sequence": "\x1b[" + "0" * 180_000,
    "many sequences": "\x1b[0" * 60_000,
    "deleting": "x" * 60_000 + "\r" + "\x1b[P" * 40_000,
    "inserting": "\x1b[500@" * 30_000,
    "erasing": "x" * 60_000 + "\x1b[1K" * 30_000,
    "far right": "\x1b[2K\x1b[99999Ca" * 12_000,
    "lines": "\r\b\n" * 60_000,
    "tabs": "\t" * 90_000 + "\b\b" * 40_000 + "x",
    "styles": "\x1b[1m\x1b[3m\x1b[4m\x1b[5m\x1b[7mab\b" * 6_000,
    "wide": "下\b" * 60_000,
    "marks": "a\b" + "\u0301" * 170_000,
    "up": "\x1b[A" * 60_000 + "\ra\b",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_text_takes_no_long_time_and_no_memory(text: str) -> None:
    began = time.thread_time()
    for ansi in (False, True):
        assert len(displayed(text, ansi=ansi)) <= 4 * len(text)
    assert time.thread_time() - began < 20


def test_a_line_of_carriage_returns_takes_no_time() -> None:
    began = time.thread_time()
    assert displayed("a" + "\r" * 200_000, ansi=False) == "a"
    assert time.thread_time() - began < 2  # seconds; the square of that length takes ten
