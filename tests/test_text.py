"""Foreign words in a sentence stay on its line, within their quotes, and hide nothing."""

from __future__ import annotations

import ast
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskcell.text import one_line, plain_line, remarks, shown


@pytest.mark.parametrize(
    ("word", "quoted"),
    [
        ("a b", "'a b'"),
        ("grün \U0001f600", "'grün \U0001f600'"),
        ("it's", '"it\'s"'),
        ("a\n[exit 0]", r"'a\n[exit 0]'"),
        ("\x1b[31m\x85", r"'\x1b[31m\x85'"),
        ("\u202ea\u2028", r"'\u202ea\u2028'"),
        ("a\U000e0041\U000e0141\ufe0f\u3164", r"'a\U000e0041\U000e0141\ufe0f\u3164'"),
        ("\ud800", r"'\ud800'"),
        ("\\n", r"'\\n'"),
    ],
)
def test_a_foreign_word_is_quoted_and_what_a_reader_misses_is_escaped(word: str, quoted: str) -> None:
    assert shown(word) == quoted


def test_of_a_long_word_both_ends_are_shown() -> None:
    assert shown("a" * 500 + "z.txt", 30) == f"'{'a' * 20}...{'a' * 5}z.txt'"


@given(st.text(st.characters(), max_size=60))
def test_a_quoted_word_is_read_back_as_it_was_and_holds_nothing_unseen(word: str) -> None:
    quoted = shown(word)
    assert ast.literal_eval(quoted) == word
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in quoted)
    assert plain_line(quoted) == quoted


@given(st.text(st.characters()), st.lists(st.text(st.characters()), max_size=3))
def test_each_note_is_one_line_whatever_it_quotes(first: str, notes: list[str]) -> None:
    lines = remarks(first, notes).split("\n")
    assert len(lines) == 1 + len(notes)
    assert all(line.startswith("[note: ") and line.endswith("]") for line in lines[1:])


def test_a_name_in_a_listing_is_quoted_only_where_it_must_be() -> None:
    assert one_line("grün 1.txt") == "grün 1.txt"
    assert one_line("a\nb") == r"'a\nb'"
    assert one_line("a\u202eb") == r"'a\u202eb'"
