"""Lines of `docker run` from READMEs: accepted, or refused with sentences that lead to acceptance in one round."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from tests.support.docker_run_lines import LINES, MCP_SERVERS, TOOLS
from tests.support.follow import Skill

from taskcell.profile.docker_flags import split

PAGE = Path(__file__).parents[2] / "docs" / "coming-from-docker-run.md"
MOST_ROUNDS = 1


def outcome(line: str, folder: Path) -> tuple[int, Skill]:
    """Return how many rounds a line takes until nothing is said against it, and what it has become."""
    home = folder / "home"
    for name in ("data", "photos", "src", ".aws"):
        (home / name).mkdir(parents=True)
    options, (image, *command) = split(shlex.split(line.replace("{home}", str(home))))
    skill = Skill(image, command, options)
    environ = {"HOME": str(home)}
    faults = skill.faults(folder / "here", environ)
    rounds = 0
    while faults and not skill.is_elsewhere:
        rounds += 1
        assert rounds <= MOST_ROUNDS, (line, skill, faults)
        for fault in faults:
            skill.follow(fault)
        faults = skill.faults(folder / "here", environ)
    return rounds, skill


def row(line: str, rounds: int, skill: Skill) -> str:
    what = "accepted after one round" if rounds else "accepted"
    return f"| `{line}` | {'an MCP server' if skill.is_elsewhere else what} |"


@pytest.mark.parametrize("line", LINES)
def test_a_line_is_accepted_or_what_is_said_about_it_leads_there_in_one_round(tmp_path: Path, line: str) -> None:
    rounds, skill = outcome(line, tmp_path)
    assert row(line, rounds, skill) in PAGE.read_text().splitlines()
    assert skill.is_elsewhere is (line in MCP_SERVERS)


def test_the_page_has_every_line_once() -> None:
    rows = [text for text in PAGE.read_text().split("## The lines")[1].splitlines() if text.startswith("| `")]
    assert len(rows) == len(LINES) == len(TOOLS) + len(MCP_SERVERS) == 59
