"""`taskcell-write`: what a program writes appears whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from taskcell.images.files import write_output

#: Seconds for two small programs on a busy machine.
PATIENCE = 90


def write(
    folder: Path, output: str, script: str, *words: str, overwrite: str = "false"
) -> subprocess.CompletedProcess[str]:
    """Run it with a shell script as the program; the script's $1 is the place to write to."""
    command = [sys.executable, str(write_output.__file__), overwrite, output]
    command += ["sh", "-c", script, "sh", "%output%", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def test_a_file_appears_under_its_name_when_the_program_succeeds(tmp_path: Path) -> None:
    done = write(tmp_path, "new/out.txt", 'ls; basename "$1"; echo "$2" > "$1"', "a b")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "new\nout.txt\nWrote new/out.txt (4 bytes).\n"
    assert (tmp_path / "new" / "out.txt").read_text() == "a b\n"
    assert files(tmp_path) == ["new/out.txt"]


def test_several_files_of_one_program_appear_together(tmp_path: Path) -> None:
    done = write(tmp_path, "p", 'echo > "$1-2.png"; echo > "$1-1.png"')
    assert done.stdout == "Wrote p-1.png (1 bytes).\nWrote p-2.png (1 bytes).\n"
    assert files(tmp_path) == ["p-1.png", "p-2.png"]


def test_a_failed_program_leaves_nothing_and_its_code_and_words_are_passed_on(tmp_path: Path) -> None:
    done = write(tmp_path, "out", 'echo half > "$1"; echo why >&2; exit 7')
    assert (done.returncode, done.stdout, done.stderr) == (7, "", "why\n")
    assert files(tmp_path) == []
    assert write(tmp_path, "out", "kill -9 $$").returncode == 128 + signal.SIGKILL


@pytest.mark.parametrize(("output", "there"), [("out", "out"), ("out", "out-1"), ("link", "link")])
def test_a_file_that_is_there_is_replaced_only_when_that_is_asked_for(tmp_path: Path, output: str, there: str) -> None:
    if there == "link":
        (tmp_path / there).symlink_to("nowhere")
    else:
        (tmp_path / there).write_text("precious")
    script = f'echo new > "$(dirname "$1")/{there}"'
    refused = write(tmp_path, output, script)
    assert refused.returncode == 1
    assert f"{there} exists already; choose another name, or set 'overwrite' to true" in refused.stderr
    assert files(tmp_path) == [there]
    assert write(tmp_path, output, script, overwrite="true").returncode == 0
    assert (tmp_path / there).read_text() == "new\n"


def test_a_program_that_writes_nothing_has_failed(tmp_path: Path) -> None:
    done = write(tmp_path, "out", "true")
    assert (done.returncode, done.stderr) == (1, "The program ended without an error but wrote nothing.\n")


@pytest.mark.parametrize("output", ["", "folder", "folder/", ".", "/"])
def test_a_folder_is_no_output(tmp_path: Path, output: str) -> None:
    (tmp_path / "folder").mkdir()
    done = write(tmp_path, output, "echo ran")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("is a folder; name a file.\n")


def test_a_place_that_cannot_be_written_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = write(tmp_path, "file/sub/out", "echo ran")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "The output file/sub/out cannot be written: Not a directory.\n"


def test_a_terminated_program_leaves_nothing(tmp_path: Path) -> None:
    script = 'echo half > "$1"; echo ready; exec sleep 60'
    command = [sys.executable, str(write_output.__file__), "false", "out", "sh", "-c", script, "sh", "%output%"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(PATIENCE) == 128 + signal.SIGTERM
    assert files(tmp_path) == []
