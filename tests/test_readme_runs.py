"""What a new user copies from the README works as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.engine

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
#: Seconds for a command that starts a sandbox on a busy machine.
PATIENCE = 120.0

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINES = [line for kind, text in BLOCK.findall(README) if kind == "sh" for line in text.splitlines()]
PROGRAMS = [text for kind, text in BLOCK.findall(README) if kind == "python"]


@pytest.fixture
def user(tmp_path: Path) -> dict[str, str]:
    """The environment of somebody who has installed taskcell and has a project."""
    project = tmp_path / "code" / "site"
    project.mkdir(parents=True)
    if os.getuid() == 0:
        os.chown(project, 1000, 1000)  # no command runs as root
    own = f'deployment = "readme-{os.getpid()}"\n[pool]\non_exit = "close"\nwarm = 0\n'
    (tmp_path / "taskcell.toml").write_text(own)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {"HOME": str(tmp_path), "PATH": path}


def run(argv: list[str], user: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv, env=user, cwd=user["HOME"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE,
        check=False,
    )  # fmt: skip


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("taskcell ")])
def test_every_command_of_the_readme_runs(line: str, user: dict[str, str]) -> None:
    done = run(["bash", "-c", line], user)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_of_the_readme_runs_and_speaks_to_a_sandbox(program: str, user: dict[str, str]) -> None:
    done = run([sys.executable, "-c", program], user)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("hello from ")


def test_the_readme_has_commands_and_a_program() -> None:
    assert len([line for line in LINES if line.startswith("taskcell ")]) >= 5
    assert PROGRAMS
    assert {line.split("#")[0].strip() for line in LINES if line.startswith("make ")} == {"make demo", "make test"}
