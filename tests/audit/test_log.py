"""The audit log: what a line says, and that nobody can change, move or drop one unseen."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from taskcell.audit.chain import NOTHING, Broken, follow
from taskcell.audit.log import MAX_VALUE, AuditFailed, AuditLog, kept_files


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document, _ in follow(lines(path))]


def test_each_line_names_the_one_before_it_and_the_file_is_its_users_alone(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    log.write("decision", principal="ada", command="ls", rule=None)
    log.write("end", exit_code=0)
    first, second = documents(log.path)
    assert (first["number"], first["before"]) == (1, NOTHING)
    assert (second["number"], second["before"]) == (2, first["hash"])
    assert "rule" not in first
    assert log.path.stat().st_mode & 0o777 == 0o600


def test_any_text_of_a_client_is_one_line_of_bounded_size(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    for text in ("a\nb\r\u2028", "\ud800", "\0", "x" * 1_000_000, '"}', "ä" * 5000):
        log.write("decision", command=text)
    assert len(lines(log.path)) == 6
    assert [document["command"] for document in documents(log.path)][:2] == ["a\nb\r\u2028", "\ud800"]
    assert all(len(document["command"]) <= MAX_VALUE for document in documents(log.path))
    AuditLog(log.path).write("end")


@pytest.mark.parametrize(
    "change",
    [
        lambda found: [found[0].replace(b"ada", b"bob"), *found[1:]],
        lambda found: [found[0], *found[2:]],
        lambda found: [found[1], found[0], found[2]],
        lambda found: [*found, found[2]],
        lambda found: [*found[:2], b"{}\n"],
        lambda found: [*found[:2], b"nonsense\n"],
    ],
)
def test_a_line_that_was_changed_moved_or_dropped_is_found(tmp_path: Path, change: Any) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    for _ in range(3):
        log.write("decision", principal="ada")
    with pytest.raises(Broken):
        list(follow(change(lines(log.path))))


def test_several_writers_make_one_chain(tmp_path: Path) -> None:
    def write() -> None:
        log = AuditLog(tmp_path / "audit.jsonl")
        for number in range(50):
            log.write("decision", number_of_writer=number)

    writers = [threading.Thread(target=write) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(documents(tmp_path / "audit.jsonl")) == 150


def test_rotation_keeps_the_chain_and_every_line(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl", max_size=1000)
    for _ in range(20):
        log.write("decision", command="x" * 100)
    AuditLog(log.path, max_size=1000).write("end")  # another server, after the first has gone
    files = [*kept_files(log.path), log.path]
    assert len(files) > 3
    found = [line for file in files for line in lines(file)]
    assert [document["number"] for document, _ in follow(found)] == list(range(1, 22))


def test_a_file_that_somebody_else_renames_goes_on_in_a_new_one(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    log.write("decision")
    log.path.rename(tmp_path / "elsewhere")
    log.write("end")
    assert [document["number"] for document, _ in follow([*lines(tmp_path / "elsewhere"), *lines(log.path)])] == [1, 2]


@contextmanager
def full_disk_at(size: int) -> Iterator[None]:
    """No file of this process may grow beyond a size: what a full disk does, with another error."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_fails_the_write_and_leaves_no_half_line(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    log.write("decision")
    size = log.path.stat().st_size
    with full_disk_at(size + 50), pytest.raises(AuditFailed, match="cannot be written"):
        log.write("decision", command="y" * 200)
    assert log.path.stat().st_size == size
    log.write("end")
    assert [document["event"] for document in documents(log.path)] == ["decision", "end"]


def test_a_log_that_cannot_be_continued_or_written_fails_the_write(tmp_path: Path) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text("no line of ours\n")
    fifo, link = tmp_path / "fifo", tmp_path / "link"
    os.mkfifo(fifo)
    link.symlink_to(tmp_path / "elsewhere")
    for path in (broken, fifo, link, tmp_path, tmp_path / "missing" / "x"):
        with pytest.raises(AuditFailed):
            AuditLog(path).write("decision")
    assert not (tmp_path / "elsewhere").exists()


def test_a_lock_that_is_never_given_back_fails_the_write_and_holds_nobody_up(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    log.write("decision")
    with log.path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(AuditFailed, match="holds its lock"):
            log.write("end")
    log.write("end")
    assert len(json.loads(lines(log.path)[-1])["hash"]) == 64


@pytest.mark.parametrize("kind", ["a pipe", "a link to a device without an end", "a folder"])
def test_a_kept_file_that_is_none_fails_the_call_and_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    kept = tmp_path / "audit.jsonl.000000000007"
    if kind == "a pipe":
        os.mkfifo(kept)
    elif kind == "a folder":
        kept.mkdir()
    else:
        kept.symlink_to("/dev/zero")
    failures: list[AuditFailed] = []

    def write() -> None:
        with pytest.raises(AuditFailed) as failed:
            log.write("end")
        failures.append(failed.value)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    writer.join(5)
    assert failures
