"""Whatever a manifest says: no profile that passes the policy holds a privilege that the policy does not name.

The judge here reads only what the engine is asked for in the end, and knows nothing of how it came to be.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import docker
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from taskcell.config.expansion import expand_table
from taskcell.config.settings import Settings
from taskcell.engine.base import ContainerSpec, Workspace
from taskcell.engine.docker.hardening import Place, container_config
from taskcell.errors import Denied
from taskcell.policy.policy import Policy
from taskcell.profile.build import skill_profile
from taskcell.profile.docker_flags import NAMES, SWITCHES
from taskcell.skills.manifest import Skill

#: The engine's own description of an image that asks for much.
IMAGE = {"Id": "sha256:" + "a" * 64, "Config": {"Volumes": {"/data": {}, "/etc": {}}, "User": "root"}}
FILTER = "seccomp={}"
RULES = {"allowed_mount_roots": ["ROOT"], "blocked_mount_paths": ["ROOT/blocked", "/etc"], "max_memory": "3g"}

_HOST_PATHS = (
    "/", "/etc", "/var/run/docker.sock", "//root", "/usr/share", "relative", "ROOT", "ROOT/ok", "ROOT/blocked",
    "ROOT/ok/../blocked", "ROOT/link", "ROOT/rootfs-data", "ROOT/missing", "named", "",
)  # fmt: skip
_TARGETS = (
    "/data",
    "/data/sub",
    "/workspace",
    "/workspace/x",
    "/",
    "/etc/x",
    "/.taskcell",
    "/run/x",
    "/proc",
    "rel",
    "/d:",
)
_WORDS = ("host", "none", "bridge", "container:x", "private", "root", "0", "-1", "1000:1000", "1g", "3g", "99g", "1.5",
          "SYS_ADMIN", "ALL", "seccomp=unconfined", "no-new-privileges", "A=b", "KEY", "all", "/dev/sda", "type=bind",
          "/tmp:size=1m", "/tmp", "/proc:size=1m", "/usr/bin:size=1m", "256", "")  # fmt: skip

volumes = st.builds(
    "{}:{}{}".format,
    st.sampled_from(("${SKILL_WORKDIR}", *_HOST_PATHS)),
    st.sampled_from(_TARGETS),
    st.sampled_from(("", ":ro", ":rw", ":z", ":rshared")),
)
values = st.one_of(st.sampled_from(_WORDS), volumes, st.text(max_size=6))
options = st.one_of(
    st.builds("--{}={}".format, st.sampled_from(sorted(NAMES)), values).map(lambda word: [word]),
    st.tuples(st.sampled_from(sorted(NAMES)).map("--{}".format), values).map(list),
    st.sampled_from(sorted(SWITCHES)).map(lambda name: [f"--{name}"]),
    st.builds("-v{}".format, volumes).map(lambda word: [word]),
    st.sampled_from(("-itd", "--privileged", "-P", "-iv/:/h", "--", "bare", "-e", "-u0")).map(lambda word: [word]),
)
#: Options that pass alone, so that long lists of them do not all fail at the first.
harmless = st.sampled_from(
    (
        ["--rm"], ["-i"], ["--cap-drop=ALL"], ["--ipc=private"], ["-eA=b"], ["-m", "2g"], ["--cpus=2"],
        ["-v", "ROOT/ok:/d"], ["--tmpfs=/cache:size=1m"], ["--read-only=false"], ["-u", "65534"], ["--pids-limit", "9"],
    )
)  # fmt: skip
extra_args = st.lists(st.one_of(harmless, harmless, options), max_size=4).map(
    lambda lists: [word for words in lists for word in words]
)
tables = st.fixed_dictionaries(
    {},
    optional={
        "volumes": st.lists(volumes, max_size=3),
        "extra_args": extra_args,
        "network": st.sampled_from(("none", "bridge", "host", "container:x", "a b")),
        "user": st.sampled_from(("", "root", "0:0", "1000", "agent", "1000:0", "--privileged")),
        "memory": st.sampled_from(("64m", "2g", "3g", "64g")),
        "cpus": st.sampled_from(("0.5", "4", "64")),
        "pids": st.sampled_from((1, 256, 4096)),
        "cap_add": st.lists(
            st.sampled_from(("SYS_ADMIN", "cap_sys_ptrace", "ALL", "DAC_OVERRIDE", "fsetid")), max_size=2
        ),
        "gpus": st.sampled_from(("", "all", "device=0")),
        "read_only": st.booleans(),
        "sudo": st.booleans(),
        "rm": st.booleans(),
        "platform": st.sampled_from(("", "linux/amd64", "--privileged")),
        "environment": st.lists(st.sampled_from(("A=b", "TASKCELL_X=1", "KEY", "${HOME}=x")), max_size=2),
    },
)


@pytest.fixture(scope="module")
def client() -> Iterator[docker.APIClient]:
    """Makes requests and sends none."""
    api = docker.APIClient(base_url="unix:///nowhere", version="1.41")
    yield api
    api.close()


@pytest.fixture(scope="module")
def root() -> Iterator[str]:
    # Not pytest's folder: its path is long, and the examples repeat it.
    with tempfile.TemporaryDirectory(prefix="mounts-") as folder:
        for name in ("ok", "blocked", "rootfs-data"):
            (Path(folder) / name).mkdir()
        (Path(folder) / "link").symlink_to("/etc")
        yield folder


def asked_of_the_engine(
    table: Mapping[str, Any], rules: Mapping[str, Any], client: docker.APIClient
) -> dict[str, Any] | None:
    """The body that would be sent for a skill with this table; None where it is refused on the way."""
    chosen = Settings.model_validate({"policy": rules})
    try:
        parsed = Settings.model_validate({"terminal": {**table, "image": "alpine"}}).terminal
    except ValidationError:
        return None
    expanded, faults = expand_table(parsed, {"HOME": "/root"})
    if faults:
        return None
    skill = Skill("x", "x", parsed, expanded.image, expanded.environment, expanded.mounts, Path("m.toml"), 1)  # type: ignore[arg-type]
    try:
        profile = Policy(chosen.policy).authorize_profile(skill_profile(skill, chosen))
        with profile.host_mounts() as mounts:
            spec = ContainerSpec(profile, "name", Workspace(1 << 20, "ws"), {"taskcell": "1"}, 60.0)
            place = Place("ws")
            return container_config(
                client,
                spec,
                mounts,
                volume="supervisor",
                place=place,
                image=IMAGE,
                runtime="",
                seccomp=FILTER,
                maps_users=False,
            )
    except Denied:
        return None


def with_root(value: Any, root: str) -> Any:
    if isinstance(value, str):
        return value.replace("ROOT", root)
    if isinstance(value, Mapping):
        return {key: with_root(one, root) for key, one in value.items()}
    return [with_root(one, root) for one in value] if isinstance(value, list) else value


def assert_holds_no_privilege(body: Mapping[str, Any], root: str) -> None:
    assert_is_a_sandbox(body, root)
    host = body["HostConfig"]
    assert sorted(host["CapAdd"]) == ["KILL", "SETGID", "SETPCAP", "SETUID"]
    assert host["SecurityOpt"] == ["no-new-privileges", FILTER]
    assert not host.get("ExtraHosts")


def assert_holds_what_sudo_needs(body: Mapping[str, Any], root: str) -> None:
    """And is as narrow as any other, but for a root file system that can be written."""
    assert_is_a_sandbox(body, root)
    host = body["HostConfig"]
    needed = {"AUDIT_WRITE", "CHOWN", "FOWNER", "KILL", "SETGID", "SETPCAP", "SETUID"}
    assert needed <= set(host["CapAdd"]) <= needed | {"DAC_OVERRIDE", "FSETID"}
    assert host["SecurityOpt"] == [FILTER]
    assert host["ReadonlyRootfs"] is False
    assert all(mount["ReadOnly"] for mount in host["Mounts"] if mount["Type"] == "bind")


def assert_is_a_sandbox(body: Mapping[str, Any], root: str) -> None:
    host = body["HostConfig"]
    assert body["Entrypoint"] == ["/.taskcell/supervisor"]
    assert body["User"] == "0:0"  # the supervisor's; it gives commands another
    assert body.get("Image") == IMAGE["Id"]
    assert not host.get("Privileged")
    assert host["CapDrop"] == ["ALL"]
    assert host["NetworkMode"] == "none"
    assert host["IpcMode"] == "private"
    assert host["CgroupnsMode"] == "private"
    assert host["LogConfig"]["Type"] == "none"
    for key in (
        "Binds", "Devices", "DeviceRequests", "DeviceCgroupRules", "VolumesFrom", "GroupAdd", "Ulimits",
        "CgroupParent", "PidMode", "UTSMode", "UsernsMode", "PortBindings", "PublishAllPorts", "OomKillDisable",
        "OomScoreAdj", "Links", "RestartPolicy", "StorageOpt", "Runtime", "Isolation", "Dns",
    ):  # fmt: skip
        assert not host.get(key), key
    assert 6 << 20 <= host["Memory"] <= 3 << 30
    assert host["MemorySwap"] == host["Memory"]
    assert 0 < host["NanoCpus"] <= 4_000_000_000
    assert 0 < host["PidsLimit"] <= 1024
    assert 0 < host["ShmSize"] < host["Memory"]
    assert set(host["Sysctls"]) == {"kernel.shmall", "kernel.msgmni", "kernel.sem"}
    assert int(host["Sysctls"]["kernel.shmall"]) * 4096 <= host["ShmSize"]
    assert_mounts_are_safe(host, root)


def assert_mounts_are_safe(host: Mapping[str, Any], root: str) -> None:
    system = (
        "/proc",
        "/sys",
        "/dev",
        "/etc",
        "/boot",
        "/.taskcell",
        "/usr/bin",
        "/usr/lib",
        "/workspace",
        "/run",
        "/var/run",
    )
    for target, options in host["Tmpfs"].items():
        given = dict(option.partition("=")[::2] for option in options.split(","))
        assert {"nosuid", "nodev"} <= set(given), target
        assert 0 < int(given["size"]) < host["Memory"]
        if target not in (
            "/run",
            "/run/taskcell",
            "/etc",
        ):  # /etc: an image's own volume, which stays the image's matter
            assert not f"{target}/".startswith(tuple(f"{path}/" for path in system)), target
    own = {"/.taskcell": ("supervisor", True), "/workspace": ("ws", False)}
    for mount in host["Mounts"]:
        target, source = mount["Target"], mount["Source"]
        if target in own:
            assert (source, mount["ReadOnly"]) == own.pop(target)
            continue
        assert target.startswith("/")
        assert ".." not in target
        assert not f"{target}/".startswith(tuple(f"{path}/" for path in system)), target
        if mount["Type"] == "volume":
            assert source == "ws"
        else:
            assert mount["Type"] == "bind"
            assert mount["BindOptions"] == {"Propagation": "rprivate", "NonRecursive": True}
            assert source in {f"{root}/ok", f"{root}/rootfs-data"}
    assert not own


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=tables)
def test_no_table_that_passes_holds_a_privilege(table, client, root):
    body = asked_of_the_engine(with_root(table, root), with_root(RULES, root), client)
    if body is not None:
        assert_holds_no_privilege(body, root)


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=tables, words=extra_args)
def test_no_table_with_sudo_that_passes_holds_more_than_sudo_needs_and_the_policy_names(table, words, client, root):
    rules = {**RULES, "allow_sudo": True, "allowed_capabilities": ["ALL"]}
    table = {**table, "sudo": True, "read_only": False, "extra_args": words}
    body = asked_of_the_engine(with_root(table, root), with_root(rules, root), client)
    if body is not None:
        assert_holds_what_sudo_needs(body, root)


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=extra_args)
def test_no_options_that_pass_hold_a_privilege(words, client, root):
    body = asked_of_the_engine({"extra_args": with_root(words, root)}, with_root(RULES, root), client)
    if body is not None:
        assert_holds_no_privilege(body, root)


@pytest.mark.parametrize(
    "table",
    [
        {},
        {"volumes": ["ROOT/ok:/data", "${SKILL_WORKDIR}:/workdir:ro"]},
        {"volumes": ["ROOT/rootfs-data:/data:ro"]},
        {"extra_args": ["-m", "1g", "--rm", "-v", "ROOT/ok:/d", "--tmpfs=/cache:size=1m", "--pids-limit=9"]},
    ],
)
def test_the_property_is_not_empty_for_harmless_tables_pass(table, client, root):
    body = asked_of_the_engine(with_root(table, root), with_root(RULES, root), client)
    assert body is not None
    assert_holds_no_privilege(body, root)


@pytest.mark.parametrize("table", [{}, {"cap_add": ["DAC_OVERRIDE"]}, {"volumes": ["ROOT/ok:/data:ro"]}])
def test_the_property_is_not_empty_for_tables_with_sudo_pass(table, client, root):
    rules = {**RULES, "allow_sudo": True, "allowed_capabilities": ["ALL"]}
    body = asked_of_the_engine(with_root({**table, "sudo": True}, root), with_root(rules, root), client)
    assert body is not None
    assert_holds_what_sudo_needs(body, root)
