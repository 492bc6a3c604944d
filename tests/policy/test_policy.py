"""The policy: profiles, calls, and types that only it can make."""

import copy
import dataclasses
import pickle
import re

import pytest

from taskcell.config.policy_tables import PolicySettings, RuleSettings
from taskcell.errors import Denied
from taskcell.model import Command, Profile, Reuse, TaskKey
from taskcell.mounts import Mount, Tmpfs
from taskcell.policy.policy import MAX_COMMAND_TEXT, AuthorizedCommand, AuthorizedProfile, Effect, Policy
from taskcell.policy.profile_rules import HARMLESS, JUDGEMENTS
from taskcell.refusal import Refusal, Rule

PROFILE = Profile("terminal", "taskcell/base:latest", "terminal")
SUDO = {"sudo": True, "read_only": False}


def policy(**keys):
    return Policy(PolicySettings.model_validate(keys))


def command(text="ls", tool="terminal", principal="local", profile=PROFILE):
    return Command(TaskKey(principal, "t"), tool, profile, ("bash", "-c", text), text)


def refusal(profile, **keys):
    with pytest.raises(Denied) as caught:
        policy(**keys).authorize_profile(profile)
    return caught.value.rule


def test_every_field_of_a_profile_is_judged_or_known_to_be_harmless():
    judged = [field for _, fields in JUDGEMENTS for field in fields]
    assert len(judged) == len(set(judged))
    assert {field.name for field in dataclasses.fields(Profile)} == set(judged) | HARMLESS
    assert not set(judged) & HARMLESS


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"image": "--privileged"}, "allowed-images"),
        ({"image": "a b"}, "allowed-images"),
        ({"image": "a\nb"}, "allowed-images"),
        ({"image": ""}, "allowed-images"),
        ({"image": "sha256:" + "a" * 64}, "allowed-images"),
        ({"image": "0123456789ab"}, "allowed-images"),
        ({"image": "a" * 300}, "allowed-images"),
        ({"name": "a/b"}, "form"),
        ({"name": ""}, "form"),
        ({"entrypoint": ("a\0",)}, "form"),
        ({"command": ("a\0",)}, "form"),
        ({"working_dir": "x"}, "form"),
        ({"working_dir": "/a/../b"}, "form"),
        ({"platform": "--x"}, "form"),
        ({"platform": "linux amd64"}, "form"),
        ({"runtime": "-x"}, "form"),
        ({"environment": (("A B", "x"),)}, "environment"),
        ({"environment": (("TASKCELL_TOKEN", "x"),)}, "environment"),
        ({"environment": (("A", "x\0"),)}, "environment"),
        ({"user": ""}, "root-user"),
        ({"user": "0"}, "root-user"),
        ({"user": "00"}, "root-user"),
        ({"user": "root"}, "root-user"),
        ({"user": "0:1000"}, "root-user"),
        ({"user": "1000:0"}, "root-user"),
        ({"user": "agent:root"}, "root-user"),
        ({"user": "4294967296"}, "root-user"),
        ({"user": "4294967295"}, "root-user"),
        ({"user": "-1"}, "root-user"),
        ({"user": "1:2:3"}, "root-user"),
        ({"sudo": True}, "sudo"),
        ({"cap_add": ("NET_ADMIN",)}, "capabilities"),
        ({"cap_add": ("ALL",)}, "capabilities"),
        ({"host_namespaces": ("ipc",)}, "host-namespaces"),
        ({"host_namespaces": ("pid",)}, "host-namespaces"),
        ({"network": "bridge"}, "allow-networks"),
        ({"network": ""}, "allow-networks"),
        ({"network": "container:abc"}, "allow-networks"),
        ({"network": "host"}, "host-namespaces"),
        ({"gpus": "all"}, "allow-gpus"),
        ({"memory": None}, "resource-limits"),
        ({"cpus": None}, "resource-limits"),
        ({"pids": None}, "resource-limits"),
        ({"memory": 0, "tmpfs": ()}, "resource-limits"),
        ({"pids": -1}, "resource-limits"),
        ({"cpus": float("nan")}, "resource-limits"),
        ({"cpus": float("inf")}, "resource-limits"),
        ({"cpus": 8.0}, "resource-limits"),
        ({"memory": 5 << 30}, "resource-limits"),
        ({"pids": 2048}, "resource-limits"),
        ({"tmpfs": (Tmpfs("/tmp", 2 << 30),)}, "tmpfs"),
        ({"tmpfs": (Tmpfs("/tmp", 0),)}, "tmpfs"),
        ({"tmpfs": (Tmpfs("/etc", 1),)}, "tmpfs"),
        ({"tmpfs": (Tmpfs("/tmp", 1), Tmpfs("/tmp", 1))}, "tmpfs"),
        ({"tmpfs": (Tmpfs("/tmp", 1, 0o4777),)}, "tmpfs"),
        ({"reuse": Reuse.CALL}, "reuse"),
        ({"refused": (Refusal(Rule.DEVICES, "x"),)}, "devices"),
    ],
)
def test_the_default_policy_refuses_what_would_loosen_a_sandbox(change, rule):
    assert refusal(dataclasses.replace(PROFILE, **change)) == rule


@pytest.mark.parametrize(
    "target",
    [
        "/", "/proc", "/proc/1", "/sys/fs/cgroup", "/dev", "/dev/shm", "/run", "/run/x", "/var/run", "/var/run/x",
        "/etc", "/etc/passwd", "/.taskcell", "/.taskcell/bin", "/usr", "/usr/bin", "/lib64", "/var", "/workspace",
        "/workspace/sub", "relative", "", "/a/../etc", "/a//b", "//etc", "/a/", "/a/.", "/a:ro", "/a\n", "/tmp",
    ],
)  # fmt: skip
def test_the_workspace_is_never_mounted_where_the_sandbox_would_break(target):
    profile = dataclasses.replace(PROFILE, mounts=(Mount(None, target),), tmpfs=(Tmpfs("/tmp", 1),))
    assert refusal(profile) == "mount-targets"


@pytest.mark.parametrize("target", ["/workdir", "/usr/src/app", "/home/user", "/etcetera", "/process", "/tmp/work"])
def test_the_workspace_may_be_mounted_anywhere_else(target):
    profile = dataclasses.replace(PROFILE, mounts=(Mount(None, target),))
    assert policy().authorize_profile(profile).mounts[0].target == target


def test_two_mounts_may_not_share_a_target():
    assert refusal(dataclasses.replace(PROFILE, mounts=(Mount(None, "/a"), Mount(None, "/a", True)))) == "mount-targets"


@pytest.mark.parametrize("pair", [("/data", "/data/sub"), ("/data/sub", "/data")])
def test_a_mount_may_not_lie_in_another_where_a_link_could_lead_it_elsewhere(pair):
    assert refusal(dataclasses.replace(PROFILE, mounts=tuple(Mount(None, t) for t in pair))) == "mount-targets"


@pytest.mark.parametrize(
    ("change", "keys"),
    [
        ({"network": "bridge"}, {"allow_networks": ["bridge"]}),
        ({"network": "none"}, {"allow_networks": []}),
        ({"network": "host"}, {"allow_host_namespaces": ["network"]}),
        ({"host_namespaces": ("ipc", "uts", "user")}, {"allow_host_namespaces": ["ipc", "uts", "user"]}),
        ({"tmpfs": (Tmpfs("/cache", 1 << 20),)}, {}),
        ({"gpus": "all"}, {"allow_gpus": True}),
        ({"memory": None}, {"require_resource_limits": False}),
        ({"memory": 8 << 30}, {"max_memory": "8g"}),
        ({"platform": "linux/arm64/v8"}, {}),
        ({"runtime": "io.containerd.runsc.v1"}, {}),
        ({"user": "agent"}, {}),
        ({"user": "65534:65534"}, {}),
        ({"read_only": False, "remove": False}, {}),
        (SUDO, {"allow_sudo": True}),
        (SUDO | {"cap_add": ("cap_dac_override", "FSETID")}, {"allow_sudo": True, "allowed_capabilities": ["ALL"]}),
        (SUDO | {"mounts": (Mount(None, "/data"),)}, {"allow_sudo": True}),
    ],
)
def test_what_the_policy_names_is_allowed(change, keys):
    profile = dataclasses.replace(PROFILE, **change)
    assert dataclasses.asdict(policy(**keys).authorize_profile(profile)) == dataclasses.asdict(profile)


@pytest.mark.parametrize(
    ("change", "keys"),
    [
        ({"network": "host"}, {"allow_networks": ["host"]}),
        ({"network": "container:x"}, {"allow_networks": ["container:x"]}),
        ({"cap_add": ("ALL",)}, {"allowed_capabilities": ["NET_RAW", "SYS_PTRACE"]}),
        ({"cap_add": ("A\nB",)}, {"allowed_capabilities": ["ALL"]}),
        ({"host_namespaces": ("pid",)}, {"allow_host_namespaces": ["pid"]}),
        ({"host_namespaces": ("cgroup",)}, {"allow_host_namespaces": ["pid", "ipc", "uts", "user", "network"]}),
        ({"sudo": True, "read_only": True}, {"allow_sudo": True}),
        (SUDO | {"user": "root"}, {"allow_sudo": True}),
        (SUDO | {"network": "host"}, {"allow_sudo": True, "allow_host_namespaces": ["network"]}),
        (SUDO | {"host_namespaces": ("ipc",)}, {"allow_sudo": True, "allow_host_namespaces": ["ipc"]}),
        (SUDO | {"mounts": (Mount("/usr/share", "/data"),)}, {"allow_sudo": True, "allowed_mount_roots": ["/usr"]}),
        (SUDO | {"cap_add": ("SYS_ADMIN",)}, {"allow_sudo": True, "allowed_capabilities": ["ALL"]}),
        (SUDO | {"cap_add": ("SYS_PTRACE",)}, {"allow_sudo": True, "allowed_capabilities": ["SYS_PTRACE"]}),
        ({"cap_add": ("FSETID",)}, {"allow_sudo": True, "allowed_capabilities": ["FSETID"]}),
        ({"gpus": "device=../x"}, {"allow_gpus": True}),
        ({"memory": -1}, {"require_resource_limits": False}),
    ],
)
def test_some_things_no_key_allows(change, keys):
    assert refusal(dataclasses.replace(PROFILE, **change), **keys)


@pytest.mark.parametrize(
    ("pattern", "image", "allowed"),
    [
        ("alpine", "alpine", True),
        ("alpine", "alpine:3", False),
        ("alpine", "docker.io/library/alpine:latest", True),
        ("alpine:*", "index.docker.io/library/alpine:3", True),
        ("taskcell/*", "taskcell/base:latest", True),
        ("taskcell/*", "evil.example/taskcell/base:latest", False),
        ("taskcell/*", "localhost/taskcell/base:latest", False),
        ("registry.example/me/*", "registry.example/me/tool@sha256:" + "a" * 64, True),
        ("registry.example/me/*", "REGISTRY.example/me/tool", True),
        ("registry.example/me/*", "registry.example.evil/me/tool", False),
        ("registry.example/me/tool:1", "registry.example/me/tool:1@sha256:" + "a" * 64, False),
        ("*", "localhost:5000/x/y:z", True),
    ],
)
def test_images_are_matched_in_their_full_form(pattern, image, allowed):
    chosen = policy(allowed_images=[pattern])
    profile = dataclasses.replace(PROFILE, image=image)
    if allowed:
        assert chosen.authorize_profile(profile)
    else:
        with pytest.raises(Denied, match="matches none of"):
            chosen.authorize_profile(profile)


def rule(name, effect, **keys):
    return {"name": name, "effect": effect, **keys}


def test_a_call_that_no_rule_matches_is_allowed():
    decision = policy().decide(command())
    assert (decision.effect, decision.rule) == (Effect.ALLOW, "default")
    assert policy().authorize(command("x")).command.text == "x"


def test_any_deny_wins_over_an_earlier_allow():
    chosen = policy(rules=[rule("ok", "allow"), rule("no-rm", "deny", command=r"rm\s+-r", reason="No.")])
    with pytest.raises(Denied) as caught:
        chosen.authorize(command("cd / && rm -rf /"))
    assert (caught.value.rule, caught.value.reason) == ("no-rm", "No.")
    assert chosen.decide(command("ls")).rule == "ok"


def test_the_first_of_allow_and_ask_decides():
    assert policy(rules=[rule("a", "ask"), rule("b", "allow")]).decide(command()).effect is Effect.ASK
    assert policy(rules=[rule("b", "allow"), rule("a", "ask")]).decide(command()).effect is Effect.ALLOW


def test_ask_is_a_denial_that_says_why():
    with pytest.raises(Denied, match="there is no way to ask one here"):
        policy(rules=[rule("a", "ask")]).authorize(command())


@pytest.mark.parametrize(
    ("keys", "matches"),
    [
        ({"tool": "term*"}, True),
        ({"tool": "ffmpeg"}, False),
        ({"principal": "local"}, True),
        ({"principal": "alice"}, False),
        ({"command": "^l"}, True),
        ({"command": "^s"}, False),
        ({"tool": "terminal", "principal": "alice", "command": "ls"}, False),
    ],
)
def test_a_rule_matches_where_all_its_patterns_do(keys, matches):
    assert (policy(rules=[rule("r", "deny", **keys)]).decide(command()).effect is Effect.DENY) is matches


def test_a_command_too_long_to_be_judged_is_denied():
    assert policy().decide(command("x" * (MAX_COMMAND_TEXT + 1))).rule == "command-size"


def test_a_rule_that_fails_to_evaluate_denies():
    broken = RuleSettings.model_construct(
        name="broken", tool="*", principal="*", command="(", effect="allow", reason=""
    )
    chosen = Policy(PolicySettings().model_copy(update={"rules": (broken,)}))
    with pytest.raises(Denied, match="could not be evaluated"):
        chosen.authorize(command())


def test_a_refused_profile_refuses_the_command_and_its_explanation():
    bad = command(profile=dataclasses.replace(PROFILE, sudo=True))
    assert policy().decide(bad).rule == "sudo"
    with pytest.raises(Denied, match="sudo"):
        policy().authorize(bad)


def test_an_equal_profile_is_judged_once():
    chosen = policy()
    assert chosen.authorize_profile(PROFILE) is chosen.authorize_profile(dataclasses.replace(PROFILE))


def test_a_denials_text_is_one_printable_line():
    with pytest.raises(Denied) as caught:
        policy().authorize_profile(dataclasses.replace(PROFILE, image="x\n\x1b[31m" + "y" * 10_000))
    assert re.fullmatch(r"[ -~]{1,300}", str(caught.value))


def test_only_the_policy_makes_authorised_things():
    for made in (lambda: AuthorizedProfile(PROFILE), lambda: AuthorizedCommand(command(), None)):
        with pytest.raises(TypeError, match="only a Policy makes"):
            made()


@pytest.mark.parametrize(
    "duplicate",
    [
        dataclasses.replace,
        copy.copy,
        copy.deepcopy,
        lambda it: pickle.loads(pickle.dumps(it)),
    ],
)
def test_an_authorised_thing_cannot_be_duplicated(duplicate):
    authorized = policy().authorize(command())
    for thing in (authorized, authorized.profile):
        with pytest.raises(TypeError, match="only a Policy makes"):
            duplicate(thing)


def test_an_authorised_thing_cannot_be_changed():
    authorized = policy().authorize_profile(PROFILE)
    with pytest.raises(dataclasses.FrozenInstanceError):
        authorized.sudo = True
    with pytest.raises(dataclasses.FrozenInstanceError):
        authorized._policy = policy()
    with pytest.raises(dataclasses.FrozenInstanceError):
        policy().authorize(command()).profile = authorized


def test_an_authorised_profile_has_every_field_of_its_profile():
    authorized = policy().authorize_profile(PROFILE)
    assert isinstance(authorized, Profile)
    assert dataclasses.asdict(authorized) == dataclasses.asdict(PROFILE)
    assert authorized == policy().authorize_profile(dataclasses.replace(PROFILE))
    assert hash(authorized) == hash(policy().authorize_profile(dataclasses.replace(PROFILE)))
    assert authorized != PROFILE
    assert repr(authorized).startswith("AuthorizedProfile(name=")


@pytest.mark.parametrize(
    ("name", "allowed"),
    [("cap_net_raw", ["NET_RAW"]), ("NET_RAW", ["CAP_NET_RAW"]), ("ALL", ["ALL"])],
)
def test_a_capability_that_the_policy_allows_is_refused_with_what_it_would_not_do(name, allowed):
    with pytest.raises(Denied, match="no effect, though the policy allows it"):
        policy(allowed_capabilities=allowed).authorize_profile(dataclasses.replace(PROFILE, cap_add=(name,)))


def test_with_sudo_a_folder_of_the_host_may_be_mounted_read_only_alone(tmp_path):
    allowed = {"allow_sudo": True, "allowed_mount_roots": [str(tmp_path)]}

    def mounting(**options):
        return dataclasses.replace(PROFILE, **SUDO, mounts=(Mount(str(tmp_path), "/data", **options),))

    assert policy(**allowed).authorize_profile(mounting(read_only=True))
    assert refusal(mounting(), **allowed) == "sudo"
