"""The host's folder that is everybody's workspace: what it may be, and who works in it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from taskcell.config.policy_tables import PolicySettings
from taskcell.host_folder import HostFolder
from taskcell.model import Profile
from taskcell.mounts import Mount
from taskcell.policy.host_paths import HostFacts, HostPath, look
from taskcell.policy.mount_rules import folder
from taskcell.policy.policy import Policy

OWNER = (12345, 12346)
POLICY = PolicySettings(blocked_mount_paths=())


def found(path: Path, **changes: object) -> HostPath:
    return replace(look(str(path)), owner=OWNER, **changes)


def refusals(path: Path, at: HostPath | None = None, host: HostFacts | None = None, **changes: object) -> list[str]:
    """What speaks against the folder; the facts hold nothing but the folder unless a test says more."""
    asked = HostFolder(str(path), OWNER)
    profile = replace(
        Profile("terminal", "taskcell/base:latest", "terminal", user="12345:12346", folder=asked), **changes
    )
    facts = replace(host or HostFacts(), sources=(at or found(path),))
    return [refusal.reason for refusal in folder(profile, POLICY, facts)]


def test_a_persons_folder_is_allowed_though_no_root_is(tmp_path: Path) -> None:
    assert refusals(tmp_path) == []
    assert refusals(tmp_path, user="12345") == []


@pytest.mark.parametrize("how", ["home", "above", "link"])
def test_a_home_folder_is_not_a_project(tmp_path: Path, how: str) -> None:
    home = tmp_path / "people" / "ann"
    home.mkdir(parents=True)
    (tmp_path / "link").symlink_to(home)
    path = {"home": home, "above": home.parent, "link": tmp_path / "link"}[how]
    (reason,) = refusals(path, host=HostFacts(homes=(look(str(home)),)))
    assert "home folder of whoever runs the server" in reason
    (home / "code").mkdir()
    assert refusals(home / "code", host=HostFacts(homes=(look(str(home)),))) == []


def test_the_whole_file_system_is_not_a_project() -> None:
    assert refusals(Path("/"))[0].startswith("The whole file system of the host cannot be the workspace")


def test_what_is_not_there_and_what_is_not_a_folder_say_so(tmp_path: Path) -> None:
    (reason,) = refusals(tmp_path / "none", at=look(str(tmp_path / "none")))
    assert reason.endswith("does not exist; make it before it is mounted.")
    (tmp_path / "file").write_text("")
    assert refusals(tmp_path / "file") == [
        f"The host path '{tmp_path}/file' is not a folder; name one as workspace.folder."
    ]


def test_a_folder_of_root_and_one_that_changed_hands_are_refused(tmp_path: Path) -> None:
    (reason,) = refusals(tmp_path, at=replace(look(str(tmp_path)), owner=(0, 0)))
    assert "belongs to root, and no command runs as root" in reason
    (reason,) = refusals(tmp_path, at=replace(look(str(tmp_path)), owner=(12347, 12346)))
    assert "belongs to another user or group since the server was started; start it again" in reason


def test_nobody_but_the_owner_writes_there_and_others_may_read(tmp_path: Path) -> None:
    (reason,) = refusals(tmp_path, user="33:33")
    assert reason.endswith("leave 'user' out, or set workspace = \"ro\" if they only read.")
    assert refusals(tmp_path, user="33:33", is_reader=True) == []


def test_a_folder_with_the_servers_own_files_is_refused_and_may_be_read(tmp_path: Path) -> None:
    (tmp_path / "taskcell.toml").write_text("")
    own = HostFacts(own=(look(str(tmp_path / "taskcell.toml")),))
    assert "decides what the server does" in refusals(tmp_path, host=own)[0]
    assert refusals(tmp_path, host=own, is_reader=True) == []


def test_a_folder_that_holds_the_servers_state_is_refused_even_to_readers(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    secret = HostFacts(secret=(look(str(tmp_path / "state")),))
    assert "holds a secret of the server" in refusals(tmp_path, host=secret, is_reader=True)[0]


def test_blocked_paths_and_engine_sockets_are_refused_there_as_in_any_mount(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    blocked = HostFacts(blocked=(look(str(tmp_path / "below")),))
    assert "policy.blocked_mount_paths" in refusals(tmp_path, host=blocked)[0]
    engine = HostFacts(engine=(look(str(tmp_path / "below")),))
    assert "a container engine's socket" in refusals(tmp_path, host=engine)[0]


def test_a_folder_that_nobody_looked_at_is_refused(tmp_path: Path) -> None:
    profile = Profile("terminal", "i", "terminal", folder=HostFolder(str(tmp_path), OWNER))
    assert [one.rule.value for one in folder(profile, POLICY, HostFacts())] == ["workspace-folder"]


def test_the_mounts_are_the_folder_wherever_a_profile_wants_the_workspace(tmp_path: Path) -> None:
    asked = HostFolder(str(tmp_path), look(str(tmp_path)).owner)
    profile = Profile("terminal", "taskcell/base:latest", "terminal", folder=asked, is_reader=True, user="33")
    profile = replace(profile, mounts=(Mount(None, "/again"),))
    if asked.owner == (0, 0):  # root runs the tests, whose own folder would be refused
        os.chown(tmp_path, *OWNER)
        profile = replace(profile, folder=HostFolder(str(tmp_path), OWNER))
    with Policy(POLICY).authorize_profile(profile).host_mounts() as mounts:
        assert [(one.path.resolved, one.target, one.read_only) for one in mounts] == [
            (str(tmp_path), "/workspace", True),
            (str(tmp_path), "/again", True),
        ]
