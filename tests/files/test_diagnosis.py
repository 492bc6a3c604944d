"""What a failed edit says: where the text nearly is, and what differs, so that the next try can succeed."""

from __future__ import annotations

import json
import time

import pytest

from file_driver import Files
from taskcell.files.diagnosis import diagnose

TEXT = (
    "def f(a):\n\tif a == 'x':\n\t\tprint(\u201chello\u201d,\u00a0a)\n"
    "    total = compute_total(a, b)  # it\u2019s \u2014 here\n\n"
    "class Foo:\n    def bar(self):\n        return self.totals\n"
    "line = \"a\\\\n\" + 'b &amp; c'\nesc = \x1b[31m\ncafe\u0301\n"
)


def offered(sentence: str) -> str:
    """The file's own text that a diagnosis offers."""
    return str(json.loads(sentence.partition("as a JSON string: ")[2]))


@pytest.mark.parametrize(
    ("old", "says", "place"),
    [
        ("    if a == 'x':\n        print", "line 2, character 1: the file has 1 tab where 'old' has 4 spaces", None),
        ('print("hello", a)', "line 3, character 9: the file has U+201C LEFT DOUBLE QUOTATION MARK", None),
        ("hello\u201d, a", "the file has U+00A0 NO-BREAK SPACE (\\u00a0 in JSON) where 'old' has a space", None),
        ("it's", "line 4, character 38: the file has U+2019 RIGHT SINGLE QUOTATION MARK", None),
        ("# it\u2019s - here", "the file has U+2014 EM DASH", None),
        ("4\t    total = compute_total(a, b)", "has line numbers in front", "    total = compute_total(a, b)"),
        ("     6|class Foo:\n     7|    def bar(self):", "has line numbers", "class Foo:\n    def bar(self):"),
        ("def f(a):\\n\\tif a == 'x':", "'old' has escapes such as", "def f(a):\n\tif a == 'x':"),
        ("'b & c'", "The file has HTML's escapes", "'b &amp; c'"),
        ("compute_total(a, b) &lt;", "Nearest to it", None),
        ("-    def bar(self):\n-        return self.totals", "marks + and - of a patch", None),
        ("```python\nclass Foo:\n```", "a fence of ```", "class Foo:"),
        ("class foo:\n", 'line 6, character 7: the file has "F" where \'old\' has "f"', "class Foo:\n"),
        ("compute_totl(a, b)", 'line 4 has "compute_total" where \'old\' has "compute_totl"', "compute_total(a, b)"),
        ("    def bar(self):\n        return self.total\n", 'line 8 has "totals" where \'old\' has "total"', None),
        ("esc = \u241b[31m", "the file has U+001B", "esc = \x1b[31m"),
        ("caf\u00e9", "line 11, character 4", "cafe\u0301"),
        ("print(\u201chello\u201d,\u00a0a)  ", "line 3", None),
    ],
)
def test_the_place_is_named_and_its_exact_text_is_offered(old: str, says: str, place: str | None) -> None:
    said = diagnose("/w/a", TEXT, old)
    assert said.startswith("'old' is not in /w/a; nothing was changed.")
    assert says in said
    exact = offered(said)
    assert TEXT.count(exact) == 1
    assert place is None or exact == place


def test_a_line_break_that_the_file_has_as_an_escape_in_a_string_is_found() -> None:
    said = diagnose("/w/a", 'x = 1\nprint("a\\tb\\n")\n', 'print("a\tb\n")')
    assert "The file has escapes such as" in said
    assert offered(said) == 'print("a\\tb\\n")'


def test_what_nobody_can_see_is_offered_as_escapes() -> None:
    said = diagnose("/w/a", TEXT, 'print("hello", a)')
    assert said.endswith(r'"print(\u201chello\u201d,\u00a0a)"')


def test_the_nearest_places_are_shown_where_none_is_meant() -> None:
    said = diagnose("/w/a", TEXT, "    def baz(self, x):\n        return x")
    assert "Nearest to it are these places" in said
    assert "7\t    def bar(self):\n8\t        return self.totals" in said
    assert "Nothing in it comes near" in diagnose("/w/a", TEXT, "zzz qqq")
    assert "Nothing in it comes near" in diagnose("/w/a", "", "zzz qqq")


def test_a_place_in_a_very_long_line_is_quoted_alone() -> None:
    line = ";".join(f"var item{number}=compute({number},'x')" for number in range(20_000))
    said = diagnose("/w/a", line + "\n", "var item12345=compote(12345,'x')")
    assert offered(said) == "var item12345=compute(12345,'x')"


def test_how_often_a_place_is_there_is_said() -> None:
    assert "2 more places are like it" in diagnose("/w/a", "a  b\nx\na  b\ny\na  b\n", "a b")


def test_a_long_text_is_not_quoted() -> None:
    text = "".join(f"value {number} = {number * number}\n" for number in range(500))
    said = diagnose("/w/a", text, text.replace("100", "1OO"))
    assert len(said) < 500
    assert "copy it exactly" in said


def test_a_diagnosis_in_a_file_of_ten_megabytes_takes_seconds_at_most() -> None:
    text = "\n".join(f"line {number} value_{number * 7 % 1000} = compute({number})" for number in range(250_000))
    same = "if x == 1:\n    return x\n" * 400_000
    begun = time.thread_time()
    assert "line 200001 " in diagnose("/w/a", text, "line 200000 value_3 = compte(200000)")
    assert "The place is line 30000" in diagnose("/w/a", text, "LINE 29999  value")
    assert "Nothing" in diagnose("/w/a", text, "nothing like that at all xyz")
    wrong = "\n".join(
        f"line {number} value_{number * 7 % 1000} = compute({number + 1})" for number in range(5000, 5400)
    )
    assert "Nearest" in diagnose("/w/a", text, wrong)
    diagnose("/w/a", same, "if x == 1:\n    return y\n" * 50)
    diagnose("/w/a", "a" * 10_000_000, "b" * 100_000)
    diagnose("/w/a", "ab " * 3_000_000, "ab ac " * 1000)
    diagnose("/w/a", text, wrong * 20)
    long_line = ";".join(f"var a{number}={number * 7919 % 100_003}" for number in range(500_000))
    assert "has" in diagnose("/w/a", long_line, "var a250000=7919")
    assert time.thread_time() - begun < 60  # a second or two each, on a busy machine


def test_the_offered_text_makes_the_next_try_succeed(files: Files) -> None:
    (files / "a").write_bytes("x\u00a0= \u201c1\u201d\r\ny\r\n".encode("cp1252"))
    said = str(files.refused(lambda: files.edit("a", 'x = "1"\ny', "z")))
    files.edit("a", offered(said), "z")
    assert (files / "a").read_bytes() == b"z\r\n"


def test_an_edit_that_was_made_before_is_said_to_be(files: Files) -> None:
    (files / "a").write_text("alpha = 1\nbeta = compute()\n")
    files.edit("a", "beta = compute()", "gamma = compute_more()")
    again = str(files.refused(lambda: files.edit("a", "beta = compute()", "gamma = compute_more()")))
    assert "'new' is there already, at line 2: perhaps this edit was made before." in again
    # Not for what stands anywhere, nor for what was there before the edit.
    assert "already" not in str(files.refused(lambda: files.edit("a", "delta", "1")))
    assert "already" not in str(files.refused(lambda: files.edit("a", "x alpha = 1", "alpha = 1")))
