"""The client for programs: trees and repositories in and out, on the local engine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from client_serving import served
from gateways import GatewayFactory
from taskcell.client.failures import ArgumentError, NotFoundError
from taskcell.client.process import CommandFailed
from taskcell.client.task import Task

pytestmark = pytest.mark.anyio

#: Bytes of a file with a hole, and of what is written at its end.
HOLE = 64 << 20


@pytest.fixture
async def own(gateway: GatewayFactory, tmp_path: Path) -> AsyncIterator[Task]:
    async with served(gateway, tmp_path / "state") as client:
        yield await client.open("own")


async def test_a_path_never_leads_out_of_the_workspace_or_to_another_task(own: Task, tmp_path: Path) -> None:
    await Task(own._wire, "other").write_bytes("file", b"theirs")
    (tmp_path / "here").write_bytes(b"x")
    for path in ("../other/file", "../../etc/x", "/etc/x", "a/../../x", "/workspacex", ".."):
        for work in (
            own.read_bytes(path),
            own.write_bytes(path, b""),
            own.upload(tmp_path / "here", path),
            own.download(path, tmp_path / "back"),
        ):
            with pytest.raises(ArgumentError, match="not below /workspace"):
                await work
    await own.write_bytes("a/../b", b"1")
    assert await own.read_bytes("/workspace/./b") == b"1"


def tree(folder: Path) -> dict[str, tuple[int, bytes | str]]:
    """Mode and content of all that is in a folder; of a link, its target."""
    found: dict[str, tuple[int, bytes | str]] = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = (mode, os.readlink(path))
        else:
            found[name] = (mode, b"" if path.is_dir() else path.read_bytes())
    return found


def git(folder: Path, *words: str, text: bytes | None = None) -> bytes:
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    done = subprocess.run(
        ["git", *identity, *words], cwd=folder, input=text, capture_output=True, check=True, timeout=60, env=environment
    )
    return done.stdout


async def test_a_tree_goes_in_and_comes_out_as_it_is(own: Task, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep/er").mkdir(parents=True)
    (source / "script").write_text("#!/bin/sh\n")
    (source / "script").chmod(0o755)
    (source / "deep/er/empty").touch()
    (source / "deep/link").symlink_to("../script")
    (source / "dangling").symlink_to("nowhere")
    (source / "naïve\n").write_bytes(b"\xff\0")
    os.link(source / "script", source / "same")
    for number in range(300):
        (source / f"deep/{number}").write_text(str(number))
    await own.upload(source, "in/it")
    assert (await own.run(["stat", "-c", "%h", "in/it/same"])).stdout == b"2\n"
    await own.download("in/it", tmp_path / "back")
    assert tree(tmp_path / "back") == tree(source)


async def test_one_file_takes_the_name_of_its_target(own: Task, tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"one")
    await own.upload(tmp_path / "one", "new/place")
    await own.download("new/place", tmp_path / "two")
    assert (tmp_path / "two").read_bytes() == b"one"


async def test_holes_stay_holes_on_this_machine(own: Task, tmp_path: Path) -> None:
    await own.run(f"truncate -s {HOLE} sparse; echo end >> sparse")
    await own.download("sparse", tmp_path / "sparse")
    found = (tmp_path / "sparse").stat()
    assert found.st_size == HOLE + 4
    assert found.st_blocks * 512 < HOLE // 8


async def test_a_link_that_leads_out_is_left_out_and_told(own: Task, tmp_path: Path) -> None:
    await own.run("mkdir d; echo x > d/file; ln -s /etc/passwd d/out")
    said: list[str] = []
    await own.download("d", tmp_path / "d", left_out=said.append)
    assert os.listdir(tmp_path / "d") == ["file"]
    assert "leads out" in said[0]


async def test_what_is_not_there_is_not_found(own: Task, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="here"):
        await own.upload(tmp_path / "none", "x")
    with pytest.raises(NotFoundError):
        await own.download("none", tmp_path / "x")
    with pytest.raises(NotFoundError, match="make it first"):
        await own.download(".", tmp_path / "no" / "folder")


async def test_a_repository_goes_in_and_what_changed_comes_out_as_a_patch(own: Task, tmp_path: Path) -> None:
    before = tmp_path / "before"
    before.mkdir()
    git(before, "init", "-q")
    (before / "kept").write_text("kept\n")
    (before / "gone").write_text("gone\n")
    (before / ".gitignore").write_text("*.o\n")
    git(before, "add", "-A")
    git(before, "commit", "-qm", "first")
    await own.upload_repository(before, "repo")
    await own.run("echo more >> kept; rm gone; printf '\\377\\0' > new.bin; touch made.o", cwd="repo")
    await own.run("git add new.bin; git -c user.name=B -c user.email=b@x commit -qm own", cwd="repo")
    patch = await own.diff("repo")
    git(before, "apply", "--binary", "-", text=patch)
    assert (before / "kept").read_text() == "kept\nmore\n"
    assert (before / "new.bin").read_bytes() == b"\xff\0"
    assert not (before / "gone").exists()
    assert not (before / "made.o").exists()
    assert (await own.run(["git", "status", "--short"], cwd="repo")).stdout == b" D gone\n M kept\n"
    with pytest.raises(CommandFailed):
        await own.diff(".")


async def test_files_are_kept_put_back_and_forked(own: Task) -> None:
    await own.write_bytes("kept", b"before")
    await own.snapshot("start")
    await own.write_bytes("kept", b"after")
    fork = await own.fork("fork")
    await own.restore("start")
    assert (await own.read_bytes("kept"), await fork.read_bytes("kept")) == (b"before", b"after")
    with pytest.raises(NotFoundError):
        await own.restore("none")
