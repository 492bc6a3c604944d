"""`taskcell audit`: the last lines, and whether the chain holds."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from taskcell.audit.log import AuditLog

Taskcell = Callable[..., Any]
#: Seconds for an interpreter to start and show some lines, on a busy machine.
PATIENCE = 90.0


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    (tmp_path / "my.toml").write_text('[audit]\npath = "audit.jsonl"\n')
    return AuditLog(tmp_path / "audit.jsonl", max_size=2000)


def test_the_tail_is_the_last_lines(taskcell: Taskcell, log: AuditLog, tmp_path: Path) -> None:
    for number in range(5):
        log.write("decision", command=f"command-{number}")
    done = taskcell("audit", "tail", "-n", "2", "--config", str(tmp_path / "my.toml"))
    assert done.code == 0
    assert [f"command-{number}" in done.out for number in range(5)] == [False, False, False, True, True]


def test_a_whole_log_is_verified_across_its_files_and_a_changed_one_is_named(
    taskcell: Taskcell, log: AuditLog, tmp_path: Path
) -> None:
    for number in range(20):
        log.write("decision", command=f"command-{number}")
    config = str(tmp_path / "my.toml")
    done = taskcell("audit", "verify", "--config", config)
    assert done.code == 0
    assert done.out.startswith("20 lines in ")
    oldest = sorted(tmp_path.glob("audit.jsonl.*"))[0]
    oldest.write_text(oldest.read_text().replace("command-1", "command-x", 1))
    done = taskcell("audit", "verify", "--config", config)
    assert done.code == 1
    assert done.err == f"taskcell: {oldest}:2: it was changed after it was written.\n"
    oldest.unlink()
    done = taskcell("audit", "verify", "--config", config)
    assert done.code == 0
    assert "what came before it is not here" in done.out


def test_without_a_log_both_say_so(taskcell: Taskcell, log: AuditLog, tmp_path: Path) -> None:
    for word in ("tail", "verify"):
        done = taskcell("audit", word, "--config", str(tmp_path / "my.toml"))
        assert done.code == 1
        assert "There is no audit log" in done.err


def test_a_followed_log_shows_new_lines_also_after_a_rotation(log: AuditLog, tmp_path: Path) -> None:
    log.write("decision", command="before")
    command = [
        sys.executable,
        "-m",
        "taskcell",
        "audit",
        "tail",
        "-n",
        "1",
        "-f",
        "--config",
        str(tmp_path / "my.toml"),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        watchdog = threading.Timer(PATIENCE, following.kill)
        watchdog.start()
        assert "before" in following.stdout.readline()
        for number in range(20):
            log.write("decision", command=f"command-{number}")
        shown = [following.stdout.readline() for _ in range(20)]
        following.terminate()
        watchdog.cancel()
    assert [f"command-{number}" in line for number, line in enumerate(shown)] == [True] * 20
    assert list(tmp_path.glob("audit.jsonl.*"))


@pytest.mark.parametrize("kind", ["a pipe", "a link to a device without an end", "a folder"])
@pytest.mark.parametrize("place", ["audit.jsonl", "audit.jsonl.000000000007"])
def test_what_is_not_a_regular_file_in_the_logs_place_is_named_and_not_waited_for(
    log: AuditLog, tmp_path: Path, kind: str, place: str
) -> None:
    log.write("decision", command="before")
    bad = tmp_path / place
    bad.unlink(missing_ok=True)
    if kind == "a pipe":
        os.mkfifo(bad)
    elif kind == "a folder":
        bad.mkdir()
    else:
        bad.symlink_to("/dev/zero")
    words = ("verify", "tail") if bad == log.path else ("verify",)
    for word in words:
        argv = [sys.executable, "-m", "taskcell", "audit", word, "--config", str(tmp_path / "my.toml")]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE, check=False)
        reason = "a link" if bad.is_symlink() else "not a regular file"
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"taskcell: The audit log {bad} cannot be read: it is {reason}.\n"
