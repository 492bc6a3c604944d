"""`taskcell exec`: the same path as a tool call, and the command's own exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from observe import alive, eventually, marker
from taskcell.cli import app
from taskcell.deployment.archives import ArchiveHead
from taskcell.deployment.kept import KeptFiles
from taskcell.deployment.state_folder import StateFolder
from taskcell.model import TaskKey

Taskcell = Callable[..., Any]
LOCAL = 'manifests = []\n[engine]\nkind = "local"\n'
#: Seconds for the server's part of a command to start and end, on a busy machine.
PATIENCE = 90.0


def test_output_goes_to_standard_output_and_the_exit_code_is_passed_on(taskcell: Taskcell) -> None:
    done = taskcell("exec", "--", "echo out; exit 7")
    assert (done.code, done.out) == (7, "out\n")


def test_output_is_passed_on_whole_and_as_it_was_written(taskcell: Taskcell) -> None:
    done = taskcell("exec", "--", r"seq 100000; printf '\033[31mred\r\0\b'")
    assert done.out == "".join(f"{n}\n" for n in range(1, 100_001)) + "\033[31mred\r\0\b"
    lost = taskcell("exec", "--", "seq 100000", toml=LOCAL + '[limits]\nspool = "64k"\n')
    assert lost.out.endswith("\n99999\n100000\n")
    assert "The first 523,359 bytes of stdout were not kept." in lost.err


def test_an_engine_without_isolation_is_warned_of_on_standard_error(taskcell: Taskcell) -> None:
    done = taskcell("exec", "--", "true")
    assert done.code == 0
    assert "no isolation" in done.err


def test_a_task_of_which_only_files_are_kept_is_said_to_be_one(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taskcell.toml").write_text(f'deployment = "kept"\n{LOCAL}')
    deployment = StateFolder(tmp_path / "state/taskcell/deployments/kept")
    deployment.join("a" * 16)
    files = KeptFiles(deployment, 60.0, 1 << 30)
    draft, file = files.draft(ArchiveHead("local", "one", 1.0))
    file.close()
    files.keep(draft, TaskKey("local", "one"))
    environ = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")}
    for task, is_said in (("one", True), ("two", False)):
        words = ["exec", "--task", task, "--config", str(tmp_path / "taskcell.toml"), "--", "echo", "ran"]
        assert app.run(words, environ=environ, cwd=tmp_path) == 0
        printed = capfd.readouterr()
        assert printed.out == "ran\n"
        assert ("No running server has the task 'one'. Its files are kept" in printed.err) is is_said
    assert files.tasks() == [TaskKey("local", "one")]


def test_several_words_are_a_program_and_its_arguments(taskcell: Taskcell) -> None:
    done = taskcell("exec", "--", "printf", "<%s>", "a b", "$HOME", "--task")
    assert (done.code, done.out) == (0, "<a b><$HOME><--task>")


def test_options_of_the_command_need_no_dashes_before_it(taskcell: Taskcell) -> None:
    assert taskcell("exec", "echo", "--help").out == "--help\n"


def test_a_timeout_is_exit_code_124_with_a_line_that_says_so(taskcell: Taskcell) -> None:
    done = taskcell("exec", "--timeout", "0.2", "--", "echo early; sleep 60")
    assert (done.code, done.out) == (124, "early\n")
    assert "timed out" in done.err


def test_a_denial_is_a_sentence_with_its_rule_and_exit_code_1(taskcell: Taskcell) -> None:
    rule = '[[policy.rules]]\nname = "no-rm"\ncommand = "rm "\neffect = "deny"\nreason = "Never."\n'
    done = taskcell("exec", "rm -rf /", toml=LOCAL + rule)
    assert done.code == 1
    assert "'no-rm'" in done.err
    assert "Never." in done.err


def test_an_unknown_skill_is_a_sentence_that_names_the_nearest(taskcell: Taskcell) -> None:
    done = taskcell("exec", "--skill", "termnal", "--", "x")
    assert done.code == 1
    assert "'terminal'" in done.err


@pytest.mark.parametrize("name", ["count", "count_lines"])
def test_a_skill_with_typed_tools_is_refused_with_their_names(taskcell: Taskcell, tmp_path: Path, name: str) -> None:
    manifest = tmp_path / "count.toml"
    manifest.write_text(
        'version = "1"\n[skills.count]\ndescription = "Count."\nsource = "docker:taskcell/base:latest"\n'
        '[skills.count.tools.lines]\ndescription = "Count lines."\n[skills.count.tools.words]\ndescription = "Words."\n'
    )
    done = taskcell("exec", "--skill", name, "--", "x", toml=LOCAL.replace("[]", f'["{manifest}"]'))
    assert (done.code, done.out) == (1, "")
    assert "count_lines, count_words" in done.err
    assert "free-form skills only" in done.err


def run(folder: Path, *words: str, **options: Any) -> subprocess.Popen[bytes]:
    (folder / "taskcell.toml").write_text(LOCAL)
    pipe = subprocess.PIPE
    arguments = [sys.executable, "-m", "taskcell", "exec", "--config", "taskcell.toml", *words]
    return subprocess.Popen(arguments, cwd=folder, stdin=pipe, stdout=pipe, stderr=pipe, **options)


def test_standard_input_is_passed_on_when_it_is_asked_for(tmp_path: Path) -> None:
    with run(tmp_path, "-i", "cat") as process:
        out, _ = process.communicate("a\u00e4\0b".encode(), PATIENCE)
    assert (process.returncode, out) == (0, "a\u00e4\0b".encode())


def test_standard_input_is_not_read_unless_it_is_asked_for(tmp_path: Path) -> None:
    with run(tmp_path, "cat") as process:
        assert process.stdout is not None
        assert process.stdout.read() == b""
        assert process.wait(PATIENCE) == 0


def test_binary_standard_input_is_refused_with_the_way_around(tmp_path: Path) -> None:
    with run(tmp_path, "-i", "cat") as process:
        _, err = process.communicate(b"\xff", PATIENCE)
    assert process.returncode == 1
    assert b"base64" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_kills_the_command_and_is_exit_code_130(tmp_path: Path, number: int) -> None:
    mark = marker()
    with run(tmp_path, "--", f"setsid sleep {mark} & sleep {mark}") as process:
        assert eventually(lambda: sum(line.startswith("sleep ") for line in alive(mark)) == 2)
        process.send_signal(number)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert b"Traceback" not in err
    assert not alive(mark)


@pytest.mark.parametrize("name", ["read_file", "process", "sandbox"])
def test_a_tool_of_taskcells_own_that_runs_no_program_is_refused(taskcell: Taskcell, name: str) -> None:
    done = taskcell("exec", "--skill", name, "--", "x", toml=LOCAL)
    assert (done.code, done.out) == (1, "")
    assert f"'{name}' runs no program" in done.err
