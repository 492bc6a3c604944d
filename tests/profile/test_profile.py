"""Profiles from settings and skills."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskcell.config import Settings
from taskcell.container import MIN_MEMORY, default_tmpfs
from taskcell.manifest import load
from taskcell.model import DEFAULT_USER, GIB, MIB, Mount, Reuse, Tmpfs
from taskcell.policy import Policy
from taskcell.profile import default_user, skill_profile, terminal_profile

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
    return load([tmp_path / "m.toml"], {})[0]


def test_the_default_terminal_is_hardened_and_the_default_policy_allows_it():
    settings = Settings()
    profile = terminal_profile(settings)
    assert (profile.kind, profile.name, profile.image) == ("terminal", "terminal", "taskcell/base:latest")
    assert (profile.user, profile.network, profile.read_only) == (DEFAULT_USER, "none", True)
    assert (profile.memory, profile.cpus, profile.pids) == (2 * GIB, 1.0, 256)
    assert (profile.entrypoint, profile.command, profile.cap_add) == ((), (), ())
    assert Policy(settings.policy).authorize_profile(profile).profile == profile


def test_a_skills_profile_keeps_the_images_entrypoint_unless_it_names_one(skill):
    profile = skill_profile(skill, Settings.model_validate({"engine": {"runtime": "runsc"}}))
    assert (profile.kind, profile.entrypoint, profile.command) == ("skill", None, ())
    assert (profile.environment, profile.mounts) == ((("A", "1"), ("A", "2")), (Mount(None, "/workdir", True),))
    assert (profile.remove, profile.reuse, profile.runtime) == (False, Reuse.TASK, "runsc")
    assert Policy(Settings().policy).authorize_profile(profile).profile == profile


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
    skill = load([tmp_path / "m.toml"], {"TOKEN": "s3cret"})[0]
    profile = skill_profile(skill, Settings())
    assert dict(profile.environment)["A"] == "s3cret"
    assert "s3cret" not in repr(profile) + repr(skill)


def test_files_in_a_host_folder_are_written_as_the_servers_user_unless_that_is_root():
    on_host = Settings.model_validate({"workspace": {"persistent": True, "root": "work"}})
    in_volumes = Settings.model_validate({"workspace": {"persistent": True}})
    assert default_user(on_host, 1001, 100) == "1001:100"
    assert default_user(on_host, 0, 0) == default_user(in_volumes, 1001, 100) == DEFAULT_USER
