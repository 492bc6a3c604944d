"""Durations, sizes and cores."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskcell.units import format_seconds, format_size, parse_cores, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("180s", 180), ("15m", 900), ("1h", 3600), ("1h30m", 5400), ("30d", 2592000), (2.5, 2.5), (7, 7)],
)
def test_a_duration_is_read_as_people_write_it(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value", ["15", "1 h", "1y", "", "-5s", -1, 0, "0s", True, None, float("nan"), 10**400, "999d"]
)
def test_a_duration_that_makes_no_sense_is_refused(value):
    with pytest.raises(ValueError, match="duration"):
        parse_duration(value)


@pytest.mark.parametrize(
    ("text", "size"),
    [("2g", 2 << 30), ("16MiB", 16 << 20), ("512m", 512 << 20), ("1.5k", 1536), ("7", 7), (42, 42), ("1TB", 1 << 40)],
)
def test_a_size_counts_in_powers_of_1024(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("value", ["", "big", "1x", "-1m", 0, "0", -5, True, 1.5, 10**30, "1i"])
def test_a_size_that_makes_no_sense_is_refused(value):
    with pytest.raises(ValueError, match="size"):
        parse_size(value)


@pytest.mark.parametrize(("value", "cores"), [("1", 1.0), ("1.5", 1.5), (2, 2.0), (0.25, 0.25)])
def test_cores_may_be_a_number_or_its_text(value, cores):
    assert parse_cores(value) == cores


@pytest.mark.parametrize("value", ["", "two", 0, -1, True, float("inf"), "1e3", [], 10**400])
def test_cores_that_make_no_sense_are_refused(value):
    with pytest.raises(ValueError, match="cores"):
        parse_cores(value)


@given(st.one_of(st.text(), st.floats(), st.integers(), st.booleans(), st.none(), st.lists(st.text())))
def test_no_value_makes_a_parser_fail_in_another_way(value):
    for parse in (parse_duration, parse_size, parse_cores):
        with suppress(ValueError):
            assert parse(value) > 0


def test_numbers_are_shown_short():
    assert (format_size(2 << 30), format_size(1536), format_seconds(3600.0), format_seconds(0.5)) == (
        "2 GiB",
        "1.5 KiB",
        "3600",
        "0.5",
    )
