"""Which folders of an image can be copied with a task, and how their archives lie in a snapshot."""

from __future__ import annotations

import io
from dataclasses import fields, replace
from pathlib import Path

import pytest

from pool_slots import POLICY, PROFILE
from taskcell.deployment import archives
from taskcell.errors import BadArgument
from taskcell.model import Profile
from taskcell.mounts import Tmpfs
from taskcell.policy.policy import AuthorizedProfile
from taskcell.pool import own_folders


def profile(*tmpfs: str) -> AuthorizedProfile:
    mounts = tuple(Tmpfs(target, 1 << 20) for target in tmpfs)
    plain = replace(PROFILE, own=("/testbed", "/opt/x"), read_only=False, tmpfs=mounts)
    return POLICY.authorize_profile(Profile(**{field.name: getattr(plain, field.name) for field in fields(Profile)}))


@pytest.mark.parametrize("target", ["/testbed/cache", "/opt/x/y/z"])
def test_a_folder_with_a_mount_in_it_is_not_copied(target: str) -> None:
    with pytest.raises(BadArgument, match=f"mounts '{target}' in one. Copy what is needed to /workspace"):
        own_folders.check(profile(target))


def test_a_mount_beside_the_folders_is_no_matter_and_a_snapshot_may_have_fewer_of_them() -> None:
    own_folders.check(profile("/testbed2", "/opt/y"), ["/testbed"])
    with pytest.raises(BadArgument, match=r"The snapshot has '/other' too: open the task first"):
        own_folders.check(profile(), ["/testbed", "/other"])


def test_the_first_line_of_an_archive_says_how_large_each_folders_is_and_takes_no_more_room_for_it(
    tmp_path: Path,
) -> None:
    head = archives.with_folders(archives.ArchiveHead("p", "t", 1.0, env={"A": "\udcff"}), ["/a \N{SNOWMAN}", "/b"])
    path, file = archives.begin(tmp_path / "folder" / "x", head)
    with file:
        file.write(b"aaaa" + b"bb" + b"workspace")
        archives.note_sizes(file, replace(head, own={"/a \N{SNOWMAN}": 4, "/b": 2}))
        file.write(b"!")
    with path.open("rb") as written:
        found = archives.read_head(written)
        assert (found.own, found.env) == ({"/a \N{SNOWMAN}": 4, "/b": 2}, {"A": "\udcff"})
        assert [b"".join(archives.pieces(written, size)) for size in found.own.values()] == [b"aaaa", b"bb"]
        assert written.read() == b"workspace!"


def test_an_archive_that_ends_too_early_gives_no_more_than_it_has() -> None:
    assert b"".join(archives.pieces(io.BytesIO(b"abc"), 10)) == b"abc"
    assert not list(archives.pieces(io.BytesIO(b"abc"), 0))
