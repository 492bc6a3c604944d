"""Files and trees anywhere in a sandbox, as the adapters of frameworks move them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from client_serving import LOCAL_ENGINE
from taskcell.client.blocking import Task, connect
from taskcell.integrations.exact_files import read_anywhere, write_anywhere
from taskcell.integrations.sent_tree import send_tree


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Task]:
    config = tmp_path_factory.mktemp("exact") / "taskcell.toml"
    config.write_text(LOCAL_ENGINE)
    with connect(config=config) as cell:
        yield cell.task("files")


def read(task: Task, path: Path) -> bytes:
    return task.portal.call(partial(read_anywhere, task.inner, str(path)))


def write(task: Task, path: Path, data: bytes) -> None:
    task.portal.call(partial(write_anywhere, task.inner, str(path), data))


def test_every_byte_comes_back_from_a_file_of_any_name_in_folders_that_are_made(task: Task, tmp_path: Path) -> None:
    data = bytes(range(256)) * 2000
    for name in ("new/folder/every byte\n", "-n", "$HOME `x` 'y'"):
        write(task, tmp_path / name, data)
        assert (tmp_path / name).read_bytes() == data
        assert read(task, tmp_path / name) == data


def test_what_goes_wrong_has_the_exception_that_python_has_for_it(task: Task, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "file").write_bytes(b"x")
    for missing in ("not there", "link", "file/below"):
        with pytest.raises(FileNotFoundError, match=missing):
            read(task, tmp_path / missing)
    with pytest.raises(IsADirectoryError):
        read(task, tmp_path)
    with pytest.raises(IsADirectoryError):
        write(task, tmp_path, b"x")
    with pytest.raises(OSError, match=r"File exists|Not a directory"):
        write(task, tmp_path / "file/below", b"x")


def test_a_tree_keeps_its_modes_and_links_and_is_merged(task: Task, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "below/target"
    (source / "inner").mkdir(parents=True)
    (source / "inner/run").write_bytes(b"#!/bin/sh\n")
    (source / "inner/run").chmod(0o755)
    (source / "link").symlink_to("inner/run")
    target.mkdir(parents=True)
    (target / "kept").write_bytes(b"kept")
    task.portal.call(partial(send_tree, task.inner, source, str(target)))
    assert (target / "inner/run").stat().st_mode & 0o777 == 0o755
    assert (target / "link").readlink() == Path("inner/run")
    assert (target / "kept").read_bytes() == b"kept"
    task.portal.call(partial(send_tree, task.inner, source / "inner/run", str(tmp_path / "other/named")))
    assert (tmp_path / "other/named").read_bytes() == b"#!/bin/sh\n"


def test_a_tree_that_is_not_there_is_an_error(task: Task, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="not there"):
        task.portal.call(partial(send_tree, task.inner, tmp_path / "not there", str(tmp_path / "x")))
