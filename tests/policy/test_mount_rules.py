"""Host folders: what is really there decides, whatever it is called."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from gateways import GatewayFactory
from taskcell.config.policy_tables import PolicySettings
from taskcell.errors import Denied
from taskcell.model import Profile, ToolCall
from taskcell.mounts import Mount
from taskcell.policy.host_paths import Changed, HostFacts, PathKind, held, look
from taskcell.policy.policy import Policy
from taskcell.policy.profile_rules import judge


def profile(source: str, target: str = "/data") -> Profile:
    return Profile("terminal", "taskcell/base:latest", "terminal", mounts=(Mount(source, target),))


def denial(source: object, **keys: object) -> Denied:
    with pytest.raises(Denied) as caught:
        Policy(PolicySettings.model_validate(keys)).authorize_profile(profile(str(source)))
    return caught.value


def allowed(source: object, **keys: object) -> bool:
    policy = Policy(PolicySettings.model_validate(keys))
    return policy.authorize_profile(profile(str(source))).mounts[0].source == str(source)


@pytest.fixture
def engine_socket(tmp_path: Path) -> Path:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
    return path  # the file stays, and nobody has it bound any more


@pytest.mark.parametrize(
    ("source", "rule"),
    [
        ("/", "blocked-mount-paths"),
        ("//", "blocked-mount-paths"),
        ("/etc", "blocked-mount-paths"),
        ("/etc/passwd", "blocked-mount-paths"),
        ("/home/../etc/passwd", "blocked-mount-paths"),
        ("/home/../root", "blocked-mount-paths"),
        ("//root", "blocked-mount-paths"),
        ("/root//x/../y", "blocked-mount-paths"),
        ("/var/run", "blocked-mount-paths"),
        ("/run", "blocked-mount-paths"),
        ("/var", "blocked-mount-paths"),
        ("/proc/self/root", "blocked-mount-paths"),
        ("/proc/self/cwd", "blocked-mount-paths"),
        ("/dev/shm", "blocked-mount-paths"),
        ("/sys/fs", "blocked-mount-paths"),
        ("/run/containerd", "allow-docker-socket"),
        ("/run/containerd/containerd.sock", "allow-docker-socket"),
        ("/run/podman/podman.sock", "allow-docker-socket"),
        ("/var/lib/docker/volumes", "allow-docker-socket"),
        ("/var/lib", "allow-docker-socket"),
        ("/run/user", "allow-docker-socket"),
        ("relative", "mounts"),
        ("~/x", "mounts"),
        ("/a\nb", "mounts"),
        ("", "mounts"),
    ],
)
def test_a_path_is_judged_by_what_it_resolves_to_even_below_an_allowed_root(source, rule):
    assert denial(source, allowed_mount_roots=["/"]).rule == rule


def test_no_host_folder_is_mounted_unless_the_policy_names_a_folder_that_it_lies_in(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "database").mkdir()
    assert denial(tmp_path / "data").rule == "allowed-mount-roots"
    assert denial(tmp_path / "database", allowed_mount_roots=[str(tmp_path / "data")]).rule == "allowed-mount-roots"
    assert allowed(tmp_path / "data", allowed_mount_roots=[str(tmp_path / "data")])
    assert allowed(tmp_path / "data", allowed_mount_roots=[f"{tmp_path}/"])


def test_a_name_that_only_begins_like_a_blocked_path_is_another_path(tmp_path):
    for name in ("rootfs-data", "root"):
        (tmp_path / name).mkdir()
    keys = {"allowed_mount_roots": [str(tmp_path)], "blocked_mount_paths": [str(tmp_path / "root")]}
    assert allowed(tmp_path / "rootfs-data", **keys)
    assert denial(tmp_path / "root", **keys).rule == "blocked-mount-paths"


def test_a_link_is_what_it_leads_to(tmp_path):
    (tmp_path / "inside").mkdir()
    (tmp_path / "out").symlink_to("/usr/share")
    (tmp_path / "blocked").symlink_to("/root")
    (tmp_path / "in").symlink_to("inside")
    (tmp_path / "loop").symlink_to("loop")
    root = [str(tmp_path)]
    caught = denial(tmp_path / "out", allowed_mount_roots=root)
    assert caught.rule == "allowed-mount-roots"
    assert "which is '/usr/share'" in caught.reason
    assert denial(tmp_path / "blocked", allowed_mount_roots=root).rule == "blocked-mount-paths"
    assert denial(tmp_path / "loop", allowed_mount_roots=root).rule == "mounts"
    assert allowed(tmp_path / "in", allowed_mount_roots=root)


def test_a_link_to_an_allowed_folder_from_outside_of_it_is_that_folder(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "link").symlink_to("root")
    assert allowed(tmp_path / "link", allowed_mount_roots=[str(tmp_path / "root")])
    assert allowed(tmp_path / "root", allowed_mount_roots=[str(tmp_path / "link")])


def test_a_blocked_path_that_is_a_link_blocks_both_its_name_and_what_it_leads_to(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "a" / "link").symlink_to(tmp_path / "b")
    keys = {"allowed_mount_roots": [str(tmp_path)], "blocked_mount_paths": [str(tmp_path / "a" / "link")]}
    assert denial(tmp_path / "a", **keys).rule == "blocked-mount-paths"
    assert denial(tmp_path / "b", **keys).rule == "blocked-mount-paths"


def test_another_name_of_the_same_file_is_blocked_too(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("x")
    (tmp_path / "other").hardlink_to(secret)
    keys = {"allowed_mount_roots": [str(tmp_path)], "blocked_mount_paths": [str(secret)]}
    assert denial(tmp_path / "other", **keys).rule == "blocked-mount-paths"


def test_any_socket_is_refused_under_any_name(tmp_path, engine_socket):
    (tmp_path / "notes.txt").symlink_to(engine_socket)
    (tmp_path / "hard").hardlink_to(engine_socket)
    for name in ("s", "notes.txt", "hard"):
        assert denial(tmp_path / name, allowed_mount_roots=[str(tmp_path)]).rule == "allow-docker-socket"
        assert allowed(tmp_path / name, allowed_mount_roots=[str(tmp_path)], allow_docker_socket=True)


def test_allowing_the_socket_opens_the_blocked_path_that_is_one_and_nothing_else(tmp_path, engine_socket):
    keys = {"allowed_mount_roots": [str(tmp_path)], "allow_docker_socket": True}
    assert allowed(engine_socket, **keys, blocked_mount_paths=[str(engine_socket)])
    assert denial(engine_socket, **keys, blocked_mount_paths=[str(tmp_path)]).rule == "blocked-mount-paths"


def test_a_folder_with_the_socket_of_the_engine_in_use_is_refused_when_it_is_mounted(tmp_path, engine_socket):
    authorized = Policy(PolicySettings(allowed_mount_roots=(str(tmp_path),))).authorize_profile(profile(str(tmp_path)))
    with authorized.host_mounts() as (mount,):
        assert mount.path.resolved == str(tmp_path)
    with pytest.raises(Denied, match="allow-docker-socket"), authorized.host_mounts(str(engine_socket)):
        pass


def test_a_folder_with_a_socket_that_somebody_has_bound_is_refused_even_read_only(tmp_path):
    (tmp_path / "data" / "deep").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "link").symlink_to("data")
    root = [str(tmp_path)]
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "link" / "deep" / "s"))
        for name in ("data", "link"):
            caught = denial(tmp_path / name, allowed_mount_roots=root)
            assert caught.rule == "sockets"
            assert "/data/deep/s'" in caught.reason  # a long path is shortened in its middle
        read_only = Profile("t", "alpine", "terminal", mounts=(Mount(str(tmp_path / "data"), "/data", True),))
        with pytest.raises(Denied, match="sockets"):
            Policy(PolicySettings(allowed_mount_roots=tuple(root))).authorize_profile(read_only)
        assert allowed(tmp_path / "other", allowed_mount_roots=root)
        assert allowed(tmp_path / "data", allowed_mount_roots=root, allow_docker_socket=True)
    assert allowed(tmp_path / "data", allowed_mount_roots=root)


def test_a_socket_that_appeared_after_a_folder_was_allowed_is_found_at_the_next_mount(tmp_path):
    authorized = Policy(PolicySettings(allowed_mount_roots=(str(tmp_path),))).authorize_profile(profile(str(tmp_path)))
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "s"))
        with pytest.raises(Denied, match="sockets"), authorized.host_mounts():
            pass


@pytest.mark.parametrize(
    "source", [".", "conf", "conf/skills", "conf/skills/deep", "conf/taskcell.toml", "link", "hard"]
)
def test_the_servers_own_files_are_mounted_read_only_or_not_at_all(tmp_path, source):
    (tmp_path / "conf" / "skills" / "deep").mkdir(parents=True)
    file = tmp_path / "conf" / "taskcell.toml"
    file.write_text("")
    (tmp_path / "link").symlink_to("conf")
    (tmp_path / "hard").hardlink_to(file)
    policy = Policy(PolicySettings(allowed_mount_roots=(str(tmp_path),)), own_files=(file, file.parent / "skills"))
    with pytest.raises(Denied, match="own-files") as caught:
        policy.authorize_profile(profile(str(tmp_path / source)))
    assert "read-only" in caught.value.reason
    mounts = (Mount(str(tmp_path / source), "/data", read_only=True),)
    assert policy.authorize_profile(Profile("terminal", "alpine", "terminal", mounts=mounts))


@pytest.mark.parametrize("source", [".", "conf", "conf/password", "link", "hard"])
def test_a_file_with_a_secret_is_not_even_mounted_read_only(tmp_path, source):
    (tmp_path / "conf").mkdir()
    (tmp_path / "data").mkdir()
    file = tmp_path / "conf" / "password"
    file.write_text("x")
    (tmp_path / "link").symlink_to("conf")
    (tmp_path / "hard").hardlink_to(file)
    policy = Policy(PolicySettings(allowed_mount_roots=(str(tmp_path),)), (file,), secret_files=(file,))
    for read_only in (True, False):
        mounts = (Mount(str(tmp_path / source), "/data", read_only=read_only),)
        with pytest.raises(Denied, match="holds a secret") as caught:
            policy.authorize_profile(Profile("terminal", "alpine", "terminal", mounts=mounts))
        assert caught.value.rule == "own-files"
    assert policy.authorize_profile(profile(str(tmp_path / "data")))


def test_a_manifest_that_is_a_link_is_guarded_where_it_leads_to(tmp_path):
    for name in ("skills", "common", "data"):
        (tmp_path / name).mkdir()
    (tmp_path / "common" / "x").write_text("")
    (tmp_path / "skills" / "x.toml").symlink_to("../common/x")
    policy = Policy(PolicySettings(allowed_mount_roots=(str(tmp_path),)), own_files=(tmp_path / "skills",))
    assert policy.authorize_profile(profile(str(tmp_path / "data")))
    with pytest.raises(Denied, match="own-files"):
        policy.authorize_profile(profile(str(tmp_path / "common")))


def test_a_folder_that_becomes_the_servers_own_is_refused_at_the_next_mount(tmp_path):
    (tmp_path / "data").mkdir()
    own = tmp_path / "skills"
    policy = Policy(PolicySettings(allowed_mount_roots=(str(tmp_path),)), own_files=(own,))
    authorized = policy.authorize_profile(profile(str(tmp_path / "data")))
    own.symlink_to("data")
    with pytest.raises(Denied, match="own-files"), authorized.host_mounts():
        pass


def test_what_is_neither_a_file_nor_a_folder_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, says in (("pipe", "only files and folders"), ("missing", "does not exist")):
        caught = denial(tmp_path / name, allowed_mount_roots=[str(tmp_path)])
        assert (caught.rule, says in caught.reason) == ("mounts", True)


def test_nothing_is_told_of_a_path_outside_of_the_allowed_roots():
    there, not_there = denial("/usr/share"), denial("/usr/shore")
    assert there.reason == not_there.reason.replace("shore", "share")


def test_a_refusal_of_a_folder_is_forgotten_when_the_folder_is_mended(tmp_path):
    policy = Policy(PolicySettings(allowed_mount_roots=(str(tmp_path),)))
    with pytest.raises(Denied, match="does not exist"):
        policy.authorize_profile(profile(str(tmp_path / "late")))
    (tmp_path / "late").mkdir()
    assert policy.authorize_profile(profile(str(tmp_path / "late")))


def test_a_folder_is_judged_again_each_time_it_is_mounted(tmp_path):
    (tmp_path / "data").mkdir()
    authorized = Policy(PolicySettings(allowed_mount_roots=(str(tmp_path),))).authorize_profile(
        profile(str(tmp_path / "data"))
    )
    (tmp_path / "data").rmdir()
    (tmp_path / "data").symlink_to("/root")
    with pytest.raises(Denied, match="blocked-mount-paths"), authorized.host_mounts():
        pass


def test_a_host_path_that_nobody_looked_at_is_refused():
    found = [one.rule.value for one in judge(profile("/srv"), PolicySettings(), HostFacts())]
    assert found == ["mounts"]


def test_a_path_that_changed_after_it_was_looked_at_is_not_held(tmp_path):
    (tmp_path / "a").mkdir()
    found = look(str(tmp_path / "a"))
    assert (found.kind, found.resolved) == (PathKind.FOLDER, str(tmp_path / "a"))
    with held([found]):
        (tmp_path / "a").rename(tmp_path / "b")
        (tmp_path / "a").mkdir()
    with pytest.raises(Changed), held([found]):
        pass


@pytest.mark.parametrize("root", ["/", "/root/work", "/etc", "/var/lib/docker/work", "/proc/x", "{own}", "{own}/in-it"])
def test_the_folder_of_persistent_workspaces_is_judged_too(tmp_path: Path, root: str) -> None:
    policy = Policy(PolicySettings(), own_files=(tmp_path / "manifests",))
    with pytest.raises(Denied, match=r"workspace\.root: "):
        policy.authorize_root(Path(root.format(own=tmp_path / "manifests")))


def test_a_folder_for_persistent_workspaces_may_be_new_and_need_not_be_an_allowed_root(tmp_path: Path) -> None:
    Policy(PolicySettings(), own_files=(tmp_path / "taskcell.toml",)).authorize_root(tmp_path / "new" / "work")


@pytest.mark.anyio
async def test_no_sandbox_may_read_what_tokens_of_sandboxes_are_derived_from(gateway: GatewayFactory, tmp_path: Path):
    state = tmp_path / "state" / "deployments" / "mine"
    state.parent.mkdir(parents=True)
    toml = (
        f'[policy]\nallowed_mount_roots = ["{tmp_path}"]\nblocked_mount_paths = []\n'
        f'[terminal]\nvolumes = ["{tmp_path / "state"}:/mnt:ro"]\n'
    )
    async with gateway(toml, engine="local", state=state) as gw:
        with pytest.raises(Denied, match="holds a secret of the server"):
            await gw.call(ToolCall("local", "terminal", {"command": "true"}))
