"""The client for programs: trees and repositories in and out, on the local engine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from client_serving import served
from gateways import GatewayFactory
from taskcell.client.failures import ArgumentError, CellError, LostError, NotFoundError
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


async def test_names_of_any_bytes_are_files_and_those_of_dots_alone_are_tasks(
    gateway: GatewayFactory, tmp_path: Path
) -> None:
    async with served(gateway, tmp_path / "state") as cell:
        own, odd = await cell.open("own"), b"caf\xe9%2F?#;\n x"
        await own.write_bytes(odd, b"1")
        await own.write_bytes(Path(os.fsdecode(b"d\xff/x")), b"2")
        assert await own.read_bytes(os.fsdecode(odd)) == b"1"
        assert (await own.run(["cat", "x"], cwd=b"d\xff")).stdout == b"2"
        await own.download(b"d\xff", tmp_path / "here")
        await own.upload(tmp_path / "here", b"e\xfe")
        assert await own.read_bytes(b"e\xfe/x") == b"2"
        for name in (".", "..", "...", "x%2f.."):
            task = await cell.open(name)
            await task.write_bytes("x", name.encode())
            assert (await task.run(["cat", "x"])).stdout == await task.read_bytes("x") == name.encode()
        for refused in (own.read_bytes("\ud800"), own.write_bytes("\ud800", b""), cell.task("\ud800").run("true")):
            with pytest.raises(ArgumentError, match="half of a character"):
                await refused


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


async def test_what_cannot_be_copied_here_is_an_error_about_this_machine(own: Task, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    os.mkfifo(tree / "a")
    (tmp_path / "l").symlink_to(tree / "a")
    (tree / "b").write_bytes(b"1")
    with pytest.raises(CellError, match="b here cannot be read") as caught:
        await own.upload(tree, "there", left_out=lambda _: (tree / "b").unlink())
    assert not isinstance(caught.value, LostError)
    for special in (tree / "a", tmp_path / "l"):
        with pytest.raises(ArgumentError, match="device, a pipe or a socket"):
            await own.upload(special, "x")
        await own.write_bytes("x", b"1")
        with pytest.raises(ArgumentError, match="device, a pipe or a socket"):
            await own.download("x", special)
    assert (tree / "a").is_fifo()


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


async def changed(own: Task, source: Path, work: str) -> bytes:
    """Upload a repository, do some work in it, and apply what has changed to the repository here."""
    await own.upload_repository(source, "repo")
    (await own.run(work, cwd="repo")).check()
    patch = await own.diff("repo")
    if patch:
        git(source, "apply", "--binary", "-", text=patch)
    return patch


def repository(folder: Path, **more: str) -> Path:
    folder.mkdir()
    git(folder, "init", "-q")
    for name, text in more.items():
        (folder / name).write_text(text)
    if more:
        git(folder, "add", "-A")
        git(folder, "commit", "-qm", "first")
    return folder


async def test_changes_that_were_there_before_and_files_that_git_does_not_know_are_not_in_the_patch(
    own: Task, tmp_path: Path
) -> None:
    source = repository(tmp_path / "source", a="a\n", b="b\n", c="c\n")
    (source / "a").write_text("changed before\n")
    (source / "untracked").write_text("here before\n")
    (source / "b").unlink()
    patch = await changed(own, source, "echo new > c; echo more >> untracked")
    assert [line for line in patch.splitlines() if line.startswith(b"+++")] == [b"+++ b/c", b"+++ b/untracked"]
    assert (source / "untracked").read_text() == "here before\nmore\n"
    assert (source / "a").read_text() == "changed before\n"


async def test_a_repository_without_a_commit_and_one_that_is_not_changed_are_repositories(
    own: Task, tmp_path: Path
) -> None:
    source = repository(tmp_path / "empty")
    assert await changed(own, source, "true") == b""
    assert await own.diff("repo") == b""
    await own.run("echo first > file", cwd="repo")
    assert b"+first\n" in await own.diff("repo")


async def test_modes_links_moves_bytes_and_files_that_are_ignored_and_were_added_by_force_are_in_the_patch(
    own: Task, tmp_path: Path
) -> None:
    source = repository(tmp_path / "source", script="#!/bin/sh\n" * 20, text="text\n", **{".gitignore": "*.o\n"})
    settings = (("color.ui", "always"), ("diff.noprefix", "true"), ("diff.context", "0"), ("diff.external", "false"))
    work = "".join(f"git config {name} {value}; " for name, value in settings)
    work += """mkdir d; git mv script d/moved; chmod +x d/moved; ln -s ../text d/link; printf '\\r\\0\\377' > 'ü "b'
    echo kept > forced.o; echo not > made.o; git add -f forced.o; cd d; : > deep"""
    patch = await changed(own, source, work)
    assert b"rename from script\nrename to d/moved\n" in patch
    assert (source / "d/moved").stat().st_mode & 0o111
    assert (source / "d/link").readlink() == Path("../text")
    assert (source / 'ü "b').read_bytes() == b"\r\0\xff"
    assert (source / "d/deep").read_bytes() == b""
    assert ((source / "forced.o").exists(), (source / "made.o").exists()) == (True, False)


async def test_attributes_that_change_bytes_make_no_difference_by_themselves(own: Task, tmp_path: Path) -> None:
    """Line ends that were converted here, and a file whose filter the sandbox lacks, as that of Git LFS."""
    source = repository(tmp_path / "source", **{".gitattributes": "*.bin filter=lfs -text\n", "big.bin": "pointer\n"})
    (source / "big.bin").write_text("what the pointer stands for\n")
    (source / "unix").write_text("line\n")
    git(source, "-c", "core.autocrlf=false", "add", "unix")
    git(source, "commit", "-qm", "unix")
    (source / "unix").write_bytes(b"line\r\n")
    patch = await changed(own, source, "printf 'more\\r\\n' >> unix")
    assert b"big.bin" not in patch
    assert (source / "unix").read_bytes() == b"line\r\nmore\r\n"


async def test_a_worktree_is_refused_with_what_to_do_and_a_submodule_goes_with_its_repository(
    own: Task, tmp_path: Path
) -> None:
    inner, source = repository(tmp_path / "inner", x="x\n"), repository(tmp_path / "source", a="a\n")
    git(source, "worktree", "add", "-q", str(tmp_path / "worktree"))
    with pytest.raises(ArgumentError, match="linked worktree or a submodule: clone it"):
        await own.upload_repository(tmp_path / "worktree", "repo")
    git(source, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(inner), "sub")
    git(source, "commit", "-qm", "with a submodule")
    work = "cd sub && echo y > y && git add y && git -c user.name=B -c user.email=b@x commit -qm y"
    await own.upload_repository(source, "repo")
    (await own.run(work, cwd="repo")).check()
    assert b"+Subproject commit" in await own.diff("repo")
    assert b"+Subproject commit" in await own.diff("repo/sub/..")


async def test_files_are_kept_put_back_and_forked(own: Task) -> None:
    await own.write_bytes("kept", b"before")
    await own.snapshot("start")
    await own.write_bytes("kept", b"after")
    fork = await own.fork("fork")
    await own.restore("start")
    assert (await own.read_bytes("kept"), await fork.read_bytes("kept")) == (b"before", b"after")
    with pytest.raises(NotFoundError):
        await own.restore("none")
