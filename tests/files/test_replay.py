"""A replay of generated edit tasks: how many succeed at once, how many after one answer, and none ever wrongly."""

from __future__ import annotations

from pathlib import Path

import pytest

from edit_replay import EditFile, Outcome, replay, table
from file_driver import Files
from taskcell.errors import BadArgument, FileRefused

#: Ten encodings, each with each of fifteen slips, twice; line ends and indentation by chance.
TASKS = 300


def test_most_edits_with_a_slip_succeed_after_one_answer_and_none_is_wrong(
    files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    def on(path: Path) -> EditFile:
        def edit(old: str, new: str) -> str | None:
            try:
                files.edit(path.name, old, new)
            except (FileRefused, BadArgument) as refused:
                return str(refused)
            return None

        return edit

    found = replay(files.folder, TASKS, on)
    with capsys.disabled():
        print("\n" + " / ".join(outcome.value for outcome in Outcome), table(found), sep="\n")
    wrong = sum(counts[Outcome.WRONG] for counts in found.values())
    first = sum(counts[Outcome.FIRST] for counts in found.values())
    second = sum(counts[Outcome.SECOND] for counts in found.values())
    assert wrong == 0
    assert found["none"][Outcome.FIRST] == found["CRLF"][Outcome.FIRST] == TASKS // 15
    assert first + second >= TASKS * 0.97
