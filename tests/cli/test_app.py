"""What every command has: help with an example, one sentence for a failure, and the exit codes of `cli.app.run`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from taskcell import __version__
from taskcell.cli.command import guarded
from taskcell.errors import BadArgument, EngineUnavailable, ManifestError

Taskcell = Callable[..., Any]
COMMANDS = [
    ("serve",),
    ("install",),
    ("uninstall",),
    ("doctor",),
    ("exec",),
    ("logs",),
    ("ps",),
    ("rm",),
    ("snapshot", "list"),
    ("snapshot", "rm"),
    ("volume", "list"),
    ("volume", "rm"),
    ("token", "create"),
    ("token", "list"),
    ("token", "revoke"),
    ("audit", "tail"),
    ("audit", "verify"),
    ("skills", "list"),
    ("skills", "check"),
    ("tools",),
    ("policy", "explain"),
    ("image", "build"),
    ("import", "hermes"),
    ("import", "kubiya"),
    ("import", "mini-swe"),
    ("import", "docker-run"),
]
#: Seconds for an interpreter to start and end, on a busy machine.
PATIENCE = 90.0


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_has_help_with_an_example_and_the_common_options(
    taskcell: Taskcell, words: tuple[str, ...]
) -> None:
    done = taskcell(*words, "--help")
    assert done.code == 0
    assert f"Example: taskcell {' '.join(words)}" in done.out
    assert {"--config", "--debug", "--log-level"} <= set(done.out.split())
    assert done.err == ""


def test_the_version_is_told(taskcell: Taskcell) -> None:
    assert taskcell("--version").out == f"taskcell {__version__}\n"


@pytest.mark.parametrize(
    "words",
    [
        ("nonsense",),
        ("doctor", "--nonsense"),
        ("exec",),
        ("rm",),
        ("rm", "--all", "task"),
        ("exec", "--timeout", "soon", "ls"),
        ("policy", "explain", "x"),
        ("token", "create"),
        ("token", "revoke"),
        ("token", "create", "ada", "--scope", "root"),
        ("token", "create", "ada", "--expires", "soon"),
    ],
)
def test_bad_usage_is_exit_code_2_on_standard_error(taskcell: Taskcell, words: tuple[str, ...]) -> None:
    done = taskcell(*words)
    assert done.code == 2
    assert done.out == ""
    assert "taskcell" in done.err


def test_a_configuration_that_is_not_there_is_one_sentence_and_exit_code_1(taskcell: Taskcell) -> None:
    done = taskcell("skills", "list", "--config", "/no/such/file")
    assert done.code == 1
    assert done.err.startswith("taskcell: /no/such/file")
    assert len(done.err.splitlines()) == 1


def test_debug_shows_the_traceback_before_the_sentence(taskcell: Taskcell) -> None:
    done = taskcell("skills", "list", "--debug", "--config", "/no/such/file")
    assert done.code == 1
    assert "Traceback" in done.err
    assert done.err.splitlines()[-1].startswith("taskcell: /no/such/file")


def test_the_environment_comes_from_the_caller_alone(taskcell: Taskcell, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text("unknown_key = 1\n")
    done = taskcell("skills", "list", environ={"TASKCELL_CONFIG": str(other)})
    assert done.code == 1
    assert "unknown_key" in done.err


def fail_with(error: BaseException) -> Callable[[], int]:
    def work() -> int:
        raise error

    return work


def test_failures_inside_task_groups_are_told_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    wrapped = ExceptionGroup("group", [ExceptionGroup("group", [EngineUnavailable("No engine answers.")])])
    assert guarded(fail_with(wrapped), debug=False) == 1
    assert capsys.readouterr().err == "taskcell: No engine answers.\n"


def test_several_failures_are_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(fail_with(ManifestError(["one", "two"])), debug=False) == 1
    assert guarded(fail_with(ExceptionGroup("g", [BadArgument("three"), BadArgument("four")])), debug=False) == 1
    assert capsys.readouterr().err.split() == [
        "taskcell:",
        "one",
        "taskcell:",
        "two",
        "taskcell:",
        "three",
        "taskcell:",
        "four",
    ]


def test_an_unexpected_failure_says_how_to_see_more(capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(fail_with(ZeroDivisionError("oops")), debug=False) == 1
    said = capsys.readouterr().err
    assert "ZeroDivisionError" in said
    assert "--debug" in said
    assert "Traceback" not in said


def test_ctrl_c_is_exit_code_130() -> None:
    assert guarded(fail_with(KeyboardInterrupt()), debug=False) == 130


def test_a_reader_that_left_is_no_traceback() -> None:
    line = f"{sys.executable} -m taskcell --help | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, timeout=PATIENCE, check=False)
    assert b"Traceback" not in done.stderr
    assert b"BrokenPipe" not in done.stderr


def test_a_deleted_working_folder_is_no_traceback(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    line = f"rmdir {folder}; exec {sys.executable} -m taskcell skills list"
    done = subprocess.run(["bash", "-c", line], capture_output=True, timeout=PATIENCE, check=False, cwd=folder)
    assert b"Traceback" not in done.stderr
