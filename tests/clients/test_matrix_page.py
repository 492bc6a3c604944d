"""The page of the documents has what the last run of the matrix of clients gave."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import pytest

from observe import alive, eventually, marker

MATRIX = Path(__file__).parent / "matrix"
PAGE = (Path(__file__).parents[2] / "docs" / "clients.md").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(MATRIX))


def rows() -> list[list[str]]:
    """The cells of the table of checks and of the table of time-outs."""
    from page import BEGIN, END

    made = PAGE.split(BEGIN)[1].split(END)[0]
    lines = [line for line in made.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_the_page_has_a_row_for_each_client_in_the_version_that_is_driven() -> None:
    from environments import CLIENTS
    from page import CHECKS

    found = rows()
    assert found[0] == ["client", *CHECKS]
    assert [row[0] for row in found[1 : len(CLIENTS) + 1]] == [f"{one.title} {one.version}" for one in CLIENTS]
    assert [row[0] for row in found[len(CLIENTS) + 2 :]] == [one.title for one in CLIENTS]


def test_every_cell_is_a_tick_or_has_a_reason_below() -> None:
    from environments import CLIENTS

    reasons = set(re.findall(r"^(\d+)\. \S", PAGE, re.MULTILINE))
    for row in rows()[1 : len(CLIENTS) + 1]:
        assert {*row[1:]} <= {"✓", *reasons}, row


def test_a_written_page_keeps_what_stands_around_the_tables(tmp_path: Path) -> None:
    from environments import CLIENTS
    from page import BEGIN, CHECKS, END, write
    from run import Row

    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    outcomes = dict.fromkeys(CHECKS, ("held", "")) | {"cancel": ("gap", "it sends none")}
    write(page, [Row(CLIENTS[0], outcomes | {"default time-out": ("fact", "5.0")})])
    text = page.read_text()
    assert text.startswith(f"before\n{BEGIN}\n")
    assert text.endswith(f"{END}\nafter\n")
    assert "old" not in text
    assert "1. It sends none." in text
    assert "| 5 s |" in text
    assert "`TASKCELL__LIMITS__WAIT=3s`" in text


def test_a_client_for_which_no_time_is_left_is_named_and_not_driven() -> None:
    from environments import CLIENTS
    from run import drive

    row = drive(CLIENTS[0], time.monotonic() - 1)
    assert (row.left_out, row.outcomes, row.failed) == ("no time was left", {}, [])


def test_an_installation_ends_with_the_time_and_takes_what_it_started_along() -> None:
    from environments import _run

    mark = marker()
    with pytest.raises(subprocess.TimeoutExpired):
        _run(time.monotonic() + 0.5, "sh", "-c", f"sleep {mark} & sleep {mark}")
    assert eventually(lambda: not alive(mark))


def test_every_driver_is_a_row_of_the_matrix() -> None:
    from environments import CLIENTS, DRIVERS

    shared = {"probe.py", "launch.py", "langchain_messages.py"}
    assert {path.name for path in DRIVERS.iterdir() if path.is_file()} - shared == {one.driver[0] for one in CLIENTS}
