"""Profiles from settings and skills."""

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskcell.config.container_table import MIN_MEMORY, default_tmpfs
from taskcell.config.settings import Settings
from taskcell.errors import Denied
from taskcell.host_folder import HostFolder
from taskcell.model import DEFAULT_USER, GIB, MIB, Profile, Reuse
from taskcell.mounts import Mount, Tmpfs
from taskcell.policy.policy import Policy
from taskcell.profile.build import default_user, skill_profile, terminal_profile
from taskcell.skills.manifest import load

MANIFEST = """version = "1"
[defaults]
environment = ["A=1"]
[skills.x]
description = "x"
[skills.x.docker]
image = "alpine"
volumes = ["${SKILL_WORKDIR}:/workdir:ro"]
environment = ["A=2"]
rm = false
"""


@pytest.fixture
def skill(tmp_path):
    (tmp_path / "m.toml").write_text(MANIFEST)
    return load([tmp_path / "m.toml"], {}, ())[0]


def values(profile: Profile) -> list[object]:
    return [getattr(profile, field.name) for field in fields(Profile)]


def test_the_default_terminal_is_hardened_and_the_default_policy_allows_it():
    settings = Settings()
    profile = terminal_profile(settings)
    assert (profile.kind, profile.name, profile.image) == ("terminal", "terminal", "taskcell/base:latest")
    assert (profile.user, profile.network, profile.read_only) == (DEFAULT_USER, "none", True)
    assert (profile.memory, profile.cpus, profile.pids) == (2 * GIB, 1.0, 256)
    assert (profile.entrypoint, profile.command, profile.cap_add) == ((), (), ())
    assert values(Policy(settings.policy).authorize_profile(profile)) == values(profile)


def test_a_skills_profile_keeps_the_images_entrypoint_unless_it_names_one(skill):
    profile = skill_profile(skill, Settings.model_validate({"engine": {"runtime": "runsc"}}))
    assert (profile.kind, profile.entrypoint, profile.command) == ("skill", None, ())
    assert (profile.environment, profile.mounts) == ((("A", "1"), ("A", "2")), (Mount(None, "/workdir", True),))
    assert (profile.remove, profile.reuse, profile.runtime) == (False, Reuse.TASK, "runsc")
    assert values(Policy(Settings().policy).authorize_profile(profile)) == values(profile)


def test_two_gigabytes_get_the_full_sizes_of_the_file_systems_in_memory():
    assert default_tmpfs(2 * GIB) == (
        Tmpfs("/tmp", 256 * MIB),
        Tmpfs("/var/tmp", 64 * MIB),
        Tmpfs("/run", 16 * MIB, 0o755),
        Tmpfs("/dev/shm", 64 * MIB),
    )


@given(st.integers(MIN_MEMORY, 1 << 45))
def test_the_file_systems_in_memory_are_bounded_and_stay_below_a_quarter_of_it(memory):
    sizes = [tmpfs.size for tmpfs in default_tmpfs(memory)]
    assert min(sizes) > 0
    assert sum(sizes) < memory / 4


def test_a_secret_of_the_environment_shows_in_no_repr(tmp_path):
    (tmp_path / "m.toml").write_text(MANIFEST.replace("A=2", "A=${TOKEN}"))
    skill = load([tmp_path / "m.toml"], {"TOKEN": "s3cret"}, ())[0]
    profile = skill_profile(skill, Settings())
    assert dict(profile.environment)["A"] == "s3cret"
    assert "s3cret" not in repr(profile) + repr(skill)


@pytest.mark.parametrize(
    ("table", "read_only"),
    [({}, True), ({"sudo": True}, False), ({"sudo": True, "read_only": False}, False), ({"read_only": False}, False)],
)
def test_sudo_makes_the_root_file_system_writable_unless_something_else_is_written(table, read_only):
    assert terminal_profile(Settings.model_validate({"terminal": table})).read_only is read_only


def test_sudo_beside_a_written_read_only_is_refused_and_not_decided_for_the_operator():
    settings = Settings.model_validate({"terminal": {"sudo": True, "read_only": True}, "policy": {"allow_sudo": True}})
    with pytest.raises(Denied, match="leave one out"):
        Policy(settings.policy).authorize_profile(terminal_profile(settings))


def test_with_sudo_no_workspace_lies_in_a_folder_of_the_host(tmp_path):
    files = {"persistent": True, "root": str(tmp_path / "work")}
    tables = {"terminal": {"sudo": True}, "policy": {"allow_sudo": True}, "workspace": files}
    settings = Settings.model_validate(tables)
    with pytest.raises(Denied, match=r"leave workspace\.root empty"):
        Policy(settings.policy).authorize_profile(terminal_profile(settings))
    files["root"] = ""
    settings = Settings.model_validate(tables)
    Policy(settings.policy).authorize_profile(terminal_profile(settings))


def test_files_in_a_host_folder_are_written_as_the_servers_user_unless_that_is_root():
    on_host = Settings.model_validate({"workspace": {"persistent": True, "root": "work"}})
    in_volumes = Settings.model_validate({"workspace": {"persistent": True}})
    assert default_user(on_host, 1001, 100) == "1001:100"
    assert default_user(on_host, 0, 0) == default_user(in_volumes, 1001, 100) == DEFAULT_USER


def test_commands_run_as_the_owner_of_a_folder_that_is_everybodys_workspace(tmp_path):
    tmp_path.chmod(0o755)
    settings = Settings.model_validate({"workspace": {"folder": str(tmp_path)}})
    profile, found = terminal_profile(settings), tmp_path.stat()
    assert profile.folder == HostFolder(str(tmp_path), (found.st_uid, found.st_gid))
    assert profile.user == (f"{found.st_uid}:{found.st_gid}" if found.st_uid else DEFAULT_USER)
    assert profile.on_host_folder
    assert profile.environment == (("XDG_CACHE_HOME", "/tmp/.cache"),)
    gone = Settings.model_validate({"workspace": {"folder": str(tmp_path / "none")}})
    assert terminal_profile(gone).folder == HostFolder(str(tmp_path / "none"), None)
    reader = Settings.model_validate({"terminal": {"workspace": "ro"}})
    assert (terminal_profile(reader).is_reader, terminal_profile(Settings()).is_reader) == (True, False)
