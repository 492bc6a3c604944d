"""Patterns that mean the same in Python and in the ECMAScript of JSON Schema."""

import pytest

from taskcell.schema.pattern import anchored, check_pattern, matches


@pytest.mark.parametrize(
    "pattern",
    [
        "", "abc", "[a-z0-9_-]+", r"\d{1,3}(?:\.\d{1,3}){3}", r"[^\s/]+\.(?:png|jpe?g)", "a|b|", "(a)(b)?", "^a$",
        r"\bword\b", "(?=a)(?!b)a*?", "(?<=a)b", "(?<!a)b", r"[\w.\-\]\[]+", r"\u00e9\x41\t", "ä-ö\U0001f600",
        "a{2}b{2,}", "[$^.*+?(){}|]", r"\/\\\.\*\+\?\(\)\[\]\{\}\|\^\$", "[a-b-c]", "-/'\"#&~ ,:;<=>@_`!%",
    ],
)  # fmt: skip
def test_the_common_part_of_both_languages_is_taken(pattern):
    check_pattern(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        "(?i)a", "(?P<n>a)", "(?P=n)", "(?#x)", "(?<n>a)", "(?>a)", "(?i:a)", "a*+", "a++", "a?+", "a{1}+",
        "(a)(?(1)b|c)", r"\A", r"\Z", r"\z", r"\a", r"\e", r"\N{DASH}", r"\U0001f600", r"\p{L}", r"\1", r"\0", r"\07",
        r"\k<n>", r"\-", r"\_", r"\ ", r"\ud83d", r"\u{61}", r"\xg0", "[]a]", "[^]a]", "[^]a[b]", "[a[b]",
        "[[:alpha:]]", "[a--b]", "[a&&b]", "[a||b]", "[a~~b]", r"[\b]", r"[\B]", r"a\B", "a{", "a{,2}", "}", "]",
        "a{2,1}", "*a", "(*a)", "a|*", "^*", "(?=a)*", r"\b+", "(", ")", "(a", "a)", "[a", "[z-a]", r"[\d-z]", "a**",
        "(?<=a*)b", "a{99999999999}", "\\", "(?", "[",
    ],
)  # fmt: skip
def test_what_they_read_differently_is_refused(pattern):
    with pytest.raises(ValueError, match=r"different things to different clients|not a regular expression"):
        check_pattern(pattern)


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("a|b", "b", True),
        ("a|b", "ab", False),
        ("a", "a\n", False),
        ("a$", "a\n", False),
        (r"a$\s", "a\n", False),
        (r"\$[$]", "$$", True),
        (r"\d+", "٣", False),
        (r"\w+", "é", False),
        ("", "", True),
        ("^a$", "a", True),
    ],
)
def test_the_whole_text_must_match(pattern, text, fits):
    assert matches(anchored(pattern), text) is fits
