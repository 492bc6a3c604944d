"""The state folder without an engine: what is written is read back, and what is hostile costs one line in the log."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import structlog

from taskcell.deployment.key import token
from taskcell.deployment.records import NoteRecord, SandboxRecord
from taskcell.deployment.state_files import KEY_SIZE, read_own, replace
from taskcell.deployment.state_folder import StateFolder
from taskcell.model import TaskKey

#: Seconds for what takes milliseconds, on a busy machine; what waits for a pipe takes for ever.
PATIENCE = 60.0
#: A user that nobody here is.
STRANGER = 54321

RECORD = SandboxRecord(
    container="c1",
    name="taskcell-1",
    principal="local",
    task="t",
    profile="terminal",
    fingerprint="f",
    nonce="n",
    workspace="w",
    is_owner=True,
    is_in_memory=True,
    created=1000.5,
)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "deployment"


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    """What is logged at the level of warnings and above."""
    with structlog.testing.capture_logs() as logged:
        yield logged


def joined(folder: Path, instance: str) -> StateFolder:
    made = StateFolder(folder)
    in_time(lambda: made.join(instance))
    return made


def in_time(do: Callable[[], Any]) -> Any:
    """Do something that must not wait for anybody."""
    done: list[Any] = []
    working = threading.Thread(target=lambda: done.append(do()), daemon=True)
    working.start()
    working.join(PATIENCE)
    assert done, "it waits, or failed"
    return done[0]


def leave(folder: Path, instance: str, *records: SandboxRecord) -> Path:
    """The file of a server that was killed."""
    server = joined(folder, instance)
    server.write(records)
    server.leave(keep=True)
    return folder / f"{instance}.json"


def left(server: StateFolder) -> dict[str, tuple[SandboxRecord, ...]]:
    return {found.instance: found.sandboxes for found in in_time(lambda: list(server.bequeathed()))}


# --- good ones -----------------------------------------------------------------------------------------------------


def test_what_a_dead_server_wrote_is_handed_over_once(folder: Path) -> None:
    leave(folder, "dead", RECORD)
    heir = joined(folder, "heir")
    assert left(heir) == {"dead": (RECORD,)}
    assert left(heir) == {}
    assert sorted(path.name for path in folder.iterdir()) == ["heir.lock", "key"]


def test_what_no_answer_has_said_yet_is_handed_over_too(folder: Path) -> None:
    notes = (NoteRecord("local", "t", "terminal", "had died"), NoteRecord("local", "u\udcff", "", "A sentence."))
    server = joined(folder, "dead")
    server.write([RECORD], notes)
    server.leave(keep=True)
    (found,) = in_time(lambda: list(joined(folder, "heir").bequeathed()))
    assert (found.sandboxes, found.notes) == ((RECORD,), notes)


def test_only_what_was_chosen_is_handed_over(folder: Path) -> None:
    leave(folder, "one", RECORD)
    leave(folder, "two", RECORD)
    heir = joined(folder, "heir")
    assert [found.instance for found in in_time(lambda: list(heir.bequeathed(["two"])))] == ["two"]
    assert list(left(heir)) == ["one"]


def test_a_living_servers_file_is_read_by_others_and_handed_over_to_nobody(folder: Path) -> None:
    living, other = joined(folder, "living"), joined(folder, "other")
    living.write([RECORD])
    (found,) = other.servers()
    assert (found.instance, found.pid, found.alive, found.sandboxes) == ("living", os.getpid(), True, (RECORD,))
    assert left(other) == {}


def test_what_a_dead_server_left_is_handed_over_while_another_server_looks_whether_it_lives(folder: Path) -> None:
    leave(folder, "dead", RECORD)
    heir, looks = joined(folder, "heir"), joined(folder, "looks")
    looking = os.open(folder / "dead.lock", os.O_RDWR)
    fcntl.flock(looking, fcntl.LOCK_SH)  # as `looks` has it for a moment
    assert not looks.is_alive("dead")
    assert not heir.is_alive("dead")
    threading.Timer(0.2, os.close, [looking]).start()
    assert left(heir) == {"dead": (RECORD,)}


def test_servers_of_one_deployment_know_each_others_sandboxes(folder: Path) -> None:
    first, second = joined(folder, "a"), joined(folder, "b")
    assert token(first.key, "n") == token(second.key, "n") != token(first.key, "m")


def test_a_file_is_old_or_new_and_whole_even_where_its_writer_was_killed_before(folder: Path) -> None:
    file = leave(folder, "dead", RECORD)
    (folder / ".dead.json.0123456789abcdef").write_text('{"half": ')
    heir = joined(folder, "heir")
    assert left(heir) == {"dead": (RECORD,)}
    assert not file.exists()
    assert not list(folder.glob(".*"))


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(OSError, match="directory"):
        replace(tmp_path / "file", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_the_folder_and_all_in_it_are_for_its_user_alone_whatever_the_umask(tmp_path: Path, mask: int) -> None:
    folder, before = tmp_path / "state" / "taskcell" / "deployment", os.umask(mask)
    try:
        server = joined(folder, "one")
        server.write([RECORD])
        server.note_workspace(RECORD.key, "volume")
    finally:
        os.umask(before)
    found = [folder.parent, folder, *folder.rglob("*")]
    assert len(found) == 7
    assert all(path.stat().st_mode & 0o077 == 0 for path in found)


def test_notes_of_workspaces_are_kept_until_they_are_forgotten(folder: Path) -> None:
    server, key = joined(folder, "one"), TaskKey("local", "a/b\n\udcff")
    server.note_workspace(key, "volume")
    assert server.workspaces() == {key: "volume"}
    server.forget_workspace(key)
    assert server.workspaces() == {}


# --- hostile ones --------------------------------------------------------------------------------------------------


def of(**changed: Any) -> str:
    return json.dumps({"pid": 1, "sandboxes": [{**asdict(RECORD), **changed}]})


CONTENTS = {
    "infinite pid": '{"pid": 1e999, "sandboxes": []}',
    "no number": '{"pid": NaN, "sandboxes": []}',
    "a truth": '{"pid": true, "sandboxes": []}',
    "negative": '{"pid": -1, "sandboxes": []}',
    "huge": '{"pid": ' + "9" * 4000 + ', "sandboxes": []}',
    "longer than Python reads": '{"pid": ' + "9" * 10_000 + ', "sandboxes": []}',
    "infinite age": of(created=float("inf")),
    "no age": of(idle_since=float("nan")),
    "far future": of(created=1e300),
    "negative age": of(created=-5),
    "huge number": of(commands=10**400),
    "negative number": of(processes=-1),
    "fraction": of(processes=1.5),
    "truth for a number": of(processes=True),
    "number for a truth": of(is_owner=1),
    "endless text": of(task="x" * 100_000),
    "missing": json.dumps({"pid": 1, "sandboxes": [{"container": "c"}]}),
    "deep": "[" * 100_000,
    "no object": "[]",
    "no text": "\udcff",
    "nothing": "",
}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_a_file_with_impossible_values_costs_one_line_and_no_other_file(
    content: str, folder: Path, lines: list[Any]
) -> None:
    bad = leave(folder, "bad")
    bad.write_text(content, errors="surrogateescape")
    leave(folder, "good", RECORD)
    heir = joined(folder, "heir")
    assert [server.sandboxes for server in in_time(heir.servers)] == [(), (RECORD,)]
    assert left(heir) == {"bad": (), "good": (RECORD,)}
    assert [line["path"] for line in lines] == [str(bad)]


def fifo(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def elsewhere(path: Path) -> None:
    target = path.parent.parent / "elsewhere"
    target.write_text(of(task="from elsewhere"))
    path.symlink_to(target)


def directory(path: Path) -> None:
    path.mkdir()


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def foreign(path: Path) -> None:
    path.write_text(of(task="a stranger's"))
    os.chown(path, STRANGER, STRANGER)


PLANTED = [fifo, endless, elsewhere, directory, listening, pytest.param(foreign, marks=needs_root)]


@pytest.mark.parametrize("plant", PLANTED)
def test_what_is_not_our_own_regular_file_costs_one_line_and_no_wait(
    plant: Callable[[Path], None], folder: Path, lines: list[Any]
) -> None:
    bad = leave(folder, "bad")
    bad.unlink()
    plant(bad)
    leave(folder, "good", RECORD)
    heir = joined(folder, "heir")
    assert [server.sandboxes for server in in_time(heir.servers)] == [(), (RECORD,)]
    assert left(heir) == {"bad": (), "good": (RECORD,)}
    assert [line["path"] for line in lines] == [str(bad)]


@pytest.mark.parametrize("plant", PLANTED)
def test_a_lock_that_is_not_our_own_regular_file_costs_one_line_and_no_wait(
    plant: Callable[[Path], None], folder: Path, lines: list[Any]
) -> None:
    lock = leave(folder, "bad", RECORD).with_suffix(".lock")
    lock.unlink()
    plant(lock)
    heir = joined(folder, "heir")
    assert left(heir) == left(heir) == {}
    assert [server.alive for server in in_time(heir.servers)] == [False]
    assert [line["path"] for line in lines] == [str(lock)]


@pytest.mark.parametrize("plant", [fifo, endless, elsewhere, listening, pytest.param(foreign, marks=needs_root)])
def test_a_key_that_is_not_our_own_is_replaced_and_what_it_led_to_is_left_alone(
    plant: Callable[[Path], None], folder: Path
) -> None:
    leave(folder, "earlier")
    (folder / "key").unlink()
    plant(folder / "key")
    server = joined(folder, "one")
    assert server.is_shared
    assert stat.S_ISREG((folder / "key").lstat().st_mode)
    assert len((folder / "key").read_bytes()) == KEY_SIZE
    if plant is elsewhere:
        assert (folder.parent / "elsewhere").read_text() == of(task="from elsewhere")


def test_a_linked_folder_is_not_followed_and_its_target_stays_as_it_is(folder: Path, lines: list[Any]) -> None:
    target = folder.parent.parent / "target"
    leave(target, "dead", RECORD)
    before = sorted(path.name for path in target.iterdir())
    target.chmod(0o755)
    folder.parent.mkdir(parents=True)
    folder.symlink_to(target)
    assert in_time(StateFolder(folder).servers) == []
    server = joined(folder, "one")
    server.write([RECORD])
    assert not server.is_shared
    assert left(server) == {}
    assert target.stat().st_mode & 0o777 == 0o755
    assert sorted(path.name for path in target.iterdir()) == before
    assert len(lines) == 2  # one of each of the two


@needs_root
def test_a_strangers_folder_is_not_used(folder: Path, lines: list[Any]) -> None:
    folder.mkdir(parents=True)
    os.chown(folder, STRANGER, STRANGER)
    server = joined(folder, "one")
    assert not server.is_shared
    assert list(folder.iterdir()) == []
    assert [line["reason"] for line in lines] == ["it belongs to another user"]


def test_a_workspaces_note_that_is_hostile_or_names_another_task_is_not_used(folder: Path, lines: list[Any]) -> None:
    server, key = joined(folder, "one"), TaskKey("local", "t")
    server.note_workspace(key, "volume")
    notes = folder / "workspaces"
    os.mkfifo(notes / "a.json")
    (notes / "b.json").symlink_to("/dev/zero")
    (notes / "c.json").write_bytes((notes / f"{key.digest}.json").read_bytes())
    (notes / "d.json").write_text('{"principal": 1, "task": [], "place": null}')
    assert in_time(server.workspaces) == in_time(server.workspaces) == {key: "volume"}
    assert len(lines) == 4


def test_a_file_is_read_no_further_than_its_limit(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 10)
    assert read_own(file, 10) == b"x" * 10
    with pytest.raises(OSError, match="more than 9 bytes"):
        read_own(file, 9)
