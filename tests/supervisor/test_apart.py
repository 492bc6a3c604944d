"""`supervisor apart`: a transfer on a stream of its own, whose reader it waits for in the pipe itself."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from observe import HOST_TIMEOUT

#: Bytes before a file's own: what it is, its size, when it changed, its permissions.
HEAD = 22


def start(binary: Path, folder: Path, *words: str) -> subprocess.Popen[bytes]:
    argv = [binary, "apart", "", folder, *words]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_part_of_a_file_comes_whole_without_an_answer_to_any_piece(binary: Path, tmp_path: Path) -> None:
    data = os.urandom(9_000_001)
    (tmp_path / "f").write_bytes(data)
    with start(binary, tmp_path, "send", "raw", "7", "8000000", "f") as program:
        assert program.stdout is not None
        assert program.stdout.read()[HEAD:] == data[7:8_000_007]
        assert program.wait(HOST_TIMEOUT) == 0


def test_it_ends_when_nobody_wants_the_rest(binary: Path, tmp_path: Path) -> None:
    with (tmp_path / "f").open("wb") as file:
        file.truncate(1 << 40)
    with start(binary, tmp_path, "send", "raw", "0", str(1 << 40), "f") as program:
        assert program.stdin is not None
        assert program.stdout is not None
        program.stdin.close()
        while program.stdout.read(1 << 20):
            pass
        assert program.wait(HOST_TIMEOUT) == 1


def test_a_large_file_is_described_alone_where_it_is_fetched_by_another_way(binary: Path, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 1001)
    for large, sent in (("1000", 0), ("1001", 1001)):
        words = [binary, "transfer", "send", "raw", "0", "5000", "f", large]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, check=True)
        assert len(done.stdout) == HEAD + sent


def test_what_comes_ends_at_its_size_and_is_nothing_before(binary: Path, tmp_path: Path) -> None:
    with start(binary, tmp_path, "receive", "5", "-", "f") as program:
        assert program.stdin is not None
        program.stdin.write(b"12345")
        program.stdin.flush()
        assert program.wait(HOST_TIMEOUT) == 0
    assert (tmp_path / "f").read_bytes() == b"12345"
    with start(binary, tmp_path, "receive", "5", "-", "cut") as program:
        program.communicate(b"1234", HOST_TIMEOUT)
    assert os.listdir(tmp_path) == ["f"]


def test_without_its_user_or_its_folder_nothing_is_transferred(binary: Path, tmp_path: Path) -> None:
    for user, folder, said in (("nobody-here", "/", "no such user"), ("", str(tmp_path / "no"), "No such file")):
        argv = [binary, "apart", user, folder, "send", "raw", "0", "1", "f"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, said in done.stderr) == (1, "", True)
