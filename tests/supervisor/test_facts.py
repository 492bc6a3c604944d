"""`supervisor facts`: what holds for whoever runs it, one line for each fact."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

#: A file system in memory on every Linux that tests run on.
SHM = "/dev/shm"


def facts(binary: Path, *words: object) -> list[str]:
    done = subprocess.run([binary, "facts", *words], check=True, capture_output=True, text=True, timeout=20)
    return done.stdout.splitlines()


@pytest.fixture
def in_memory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=SHM) as made:
        yield Path(made)


def test_it_says_who_looks_and_what_the_kernel_says_of_that_process(binary: Path) -> None:
    lines = facts(binary)
    assert lines[0] == f"user {os.geteuid()}:{os.getegid()}"
    status = Path("/proc/self/status").read_text()
    for name in ("CapEff", "CapBnd", "NoNewPrivs", "Seccomp"):
        value = next(line.split()[1] for line in status.splitlines() if line.startswith(f"{name}:"))
        assert f"{name} {value}" in lines


def test_each_path_has_a_line_in_its_order_whether_it_can_be_seen_or_not(binary: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch(mode=0o640)
    places = [
        line.split() for line in facts(binary, tmp_path / "none", tmp_path, tmp_path / "file", "") if "at" in line
    ]
    assert [place[1] for place in places] == ["-", "700", "640", "-"]
    assert {place[2] for place in places[1:3]} == {f"{os.geteuid()}:{os.getegid()}"}


def test_a_folder_of_ours_in_memory_gets_the_mode_before_its_path(binary: Path, in_memory: Path) -> None:
    (line,) = (line for line in facts(binary, f"1770:{in_memory}") if line.startswith("at"))
    assert line.split()[1:4] == ["1770", f"{os.geteuid()}:{os.getegid()}", "1021994"]
    assert in_memory.stat().st_mode & 0o7777 == 0o1770


@pytest.mark.parametrize("word", ["8:", "777", "10000:", "-1:", ":", "x:"])
def test_what_is_not_a_mode_changes_nothing(binary: Path, in_memory: Path, word: str) -> None:
    facts(binary, f"{word}{in_memory}")
    assert in_memory.stat().st_mode & 0o7777 == 0o700


def test_a_folder_on_disk_and_a_link_keep_their_modes(binary: Path, tmp_path: Path, in_memory: Path) -> None:
    (tmp_path / "link").symlink_to(in_memory)
    facts(binary, f"777:{tmp_path}", f"777:{tmp_path}/link", f"777:{tmp_path}/none")
    assert tmp_path.stat().st_mode & 0o7777 == in_memory.stat().st_mode & 0o7777 == 0o700
