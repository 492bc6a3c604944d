"""What an engine that sees neither a sandbox's image nor its files runs inside of it."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

from supervisor_driver import Supervisor

#: A reply's head: done, a folder, its size, time and mode.
HEAD = 22
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def run(*words: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(words, input=b"", env=env, capture_output=True, timeout=30, check=False)


def test_the_environment_is_what_the_program_was_started_with(binary: Path) -> None:
    assert run(binary, "environment", env={"A": "x\ny", "B": ""}).stdout == b"A=x\ny\0B=\0"


def test_it_says_whether_the_cluster_can_be_reached(binary: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        at = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": port}
        assert run(binary, "reach", env=at).stdout == b"reached\n"
    assert run(binary, "reach", env=at).stdout == b"Connection refused\n"
    assert run(binary, "reach", env=at | {"KUBERNETES_SERVICE_HOST": "a.name"}).stdout == b"unknown\n"
    assert run(binary, "reach", env={}).stdout == b"unknown\n"


@as_root
def test_files_are_read_and_written_as_the_user(binary: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    for folder in (tmp_path, *tmp_path.parents):
        if Path(tempfile.gettempdir()) in folder.parents:  # pytest's own, which are closed to others
            folder.chmod(0o755)
    source.mkdir(mode=0o755)
    target.mkdir()
    os.chown(target, 1000, 1000)
    (source / "file").write_text("text")
    sent = run(binary, "as", "1000:1000", source, "transfer", "send", "tar", "0", "0", ".")
    assert sent.stdout[-1024:] == bytes(1024)
    # Its standard input stays open behind the archive, as an exec's does.
    argv = [binary, "as", "1000:1000", target, "transfer", "unpack-open", "."]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as put:
        assert put.stdin is not None
        assert put.stdout is not None
        put.stdin.write(sent.stdout[HEAD:])
        put.stdin.flush()
        assert put.stdout.read() == bytes([0]) + (1).to_bytes(8, "little")
    assert ((target / "file").read_text(), (target / "file").stat().st_uid) == ("text", 1000)
    (source / "file").chmod(0)
    broken = run(binary, "as", "1000:1000", source, "transfer", "send", "tar", "0", "0", ".")
    assert b"taskcell: ./file: Permission denied\n" in broken.stdout
    assert broken.stdout[-1024:] != bytes(1024)


@as_root
def test_a_folder_that_the_user_may_not_enter_is_named(binary: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    done = run(binary, "as", "1000:1000", tmp_path, "transfer", "send", "tar", "0", "0", ".")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"the folder cannot be entered" in done.stderr


@as_root
def test_a_folder_of_its_own_is_given_to_the_group_that_shares_it_and_no_other(binary: Path, tmp_path: Path) -> None:
    own, others, link = tmp_path / "own", tmp_path / "others", tmp_path / "link"
    for folder in (own, others):
        folder.mkdir(mode=0o755)
    os.chown(others, 1000, 1000)
    link.symlink_to(others)
    asked = [word for folder in (own, others, link, tmp_path / "none") for word in ("--shared", str(folder))]
    supervisor = Supervisor(binary, tmp_path / "s", options=["--group", "59999", *asked])
    supervisor.stop()
    assert (own.stat().st_gid, own.stat().st_mode & 0o7777) == (59_999, 0o2775)
    assert (others.stat().st_gid, others.stat().st_mode & 0o7777) == (1000, 0o755)
