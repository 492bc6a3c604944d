"""`extra_args`: docker's options as a profile, and what is refused of them, by which rule."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskcell.config.settings import Settings
from taskcell.errors import Denied, ManifestError
from taskcell.model import MIB, Profile
from taskcell.mounts import Mount, Tmpfs
from taskcell.policy.policy import Policy
from taskcell.profile.build import skill_profile, terminal_profile
from taskcell.profile.docker_flags import NAMES, SWITCHES
from taskcell.skills.manifest import load


def profile(*words: str, table: str = "", **settings: object) -> Profile:
    """The terminal's profile with these options; `table` adds keys to `[terminal]`."""
    import tomllib

    data = {"terminal": {"extra_args": list(words), **tomllib.loads(table)}, **settings}
    return terminal_profile(Settings.model_validate(data))


def denial(*words: str, table: str = "", policy: dict[str, object] | None = None, **settings: object) -> Denied:
    chosen = Settings.model_validate({"policy": policy or {}}).policy
    with pytest.raises(Denied) as caught:
        Policy(chosen).authorize_profile(profile(*words, table=table, **settings))
    return caught.value


@pytest.mark.parametrize(
    ("words", "rule", "says"),
    [
        (["--privileged"], "privileged", "--privileged"),
        (["--privileged=true"], "privileged", "--privileged"),
        (["--cap-add=SYS_ADMIN"], "capabilities", "SYS_ADMIN"),
        (["--cap-add", "SYS_ADMIN"], "capabilities", "SYS_ADMIN"),
        (["--network=host"], "host-namespaces", "network"),
        (["--net", "host"], "host-namespaces", "network"),
        (["--net=bridge"], "allow-networks", "bridge"),
        (["--network=container:x"], "allow-networks", "container:x"),
        (["--network", "name=bridge,ip=1.2.3.4"], "allow-networks", "name=bridge"),
        (["--pid=host"], "host-namespaces", "pid"),
        (["--pid", "container:x"], "host-namespaces", "container:x"),
        (["--ipc=host"], "host-namespaces", "ipc"),
        (["--ipc=shareable"], "host-namespaces", "shareable"),
        (["--uts=host"], "host-namespaces", "uts"),
        (["--userns=host"], "host-namespaces", "user"),
        (["--cgroupns=host"], "host-namespaces", "cgroup"),
        (["-v", "/:/h"], "blocked-mount-paths", "'/'"),
        (["-v/:/h"], "blocked-mount-paths", "'/'"),
        (["-v=/etc:/h"], "blocked-mount-paths", "/etc"),
        (["--volume=/srv:/h"], "allowed-mount-roots", "/srv"),
        (["-v", "name:/h"], "allowed-volumes", "name"),
        (["-v", "/anonymous"], "mounts", "/anonymous"),
        (["-v", "/a:/b:ro,z"], "mounts", "/a:/b:ro,z"),
        (["--mount", "type=bind,src=/,dst=/h"], "blocked-mount-paths", "'/'"),
        (["--mount=type=bind,source=/srv,target=/h,ro"], "allowed-mount-roots", "/srv"),
        (["--mount", "type=volume,src=cache,dst=/h"], "allowed-volumes", "cache"),
        (["--mount", "type=volume,src=/srv,dst=/h"], "mounts", "a volume's name as its source"),
        (["--mount", "type=volume,dst=/h"], "mounts", "a volume's name as its source"),
        (["--mount", "type=volume,src=cache,dst=h"], "mounts", "an absolute target"),
        (["--mount", "src=/srv,dst=/h"], "mounts", "'type=bind,source=${SKILL_WORKDIR},target=/h"),
        (["--mount", "type=bind,src=/srv:/etc,dst=/h"], "mounts", "'type=bind,source=${SKILL_WORKDIR},target=/h"),
        (["--mount", "type=bind,src=/srv,dst=/h:rw"], "mounts", "'type=bind,source=${SKILL_WORKDIR},target=/h"),
        (["--mount", "type=bind,src=srv,dst=/h"], "mounts", "absolute source and target"),
        (["--mount", "type=bind,src=/srv,dst=/h,ro=maybe"], "mounts", "'type=bind,source=${SKILL_WORKDIR},target=/h"),
        (["--mount", "type=bind,src=/a,src=/b,dst=/h"], "mounts", "'src' of --mount"),
        (["--mount", "type=bind,src=/a,dst=/h,bind-propagation=shared"], "mounts", "'bind-propagation' of --mount"),
        (["--volumes-from=x"], "mounts", "--volumes-from"),
        (["--volume-driver", "x"], "mounts", "--volume-driver"),
        (["--use-api-socket"], "allow-docker-socket", "--use-api-socket"),
        (["--device=/dev/kvm"], "devices", "--device"),
        (["--device-cgroup-rule", "a *:* rwm"], "devices", "--device-cgroup-rule"),
        (["--security-opt", "seccomp=unconfined"], "security-options", "--security-opt"),
        (["--security-opt=no-new-privileges:false"], "security-options", "--security-opt"),
        (["--security-opt=systempaths=unconfined"], "security-options", "--security-opt"),
        (["--env-file", "/etc/environment"], "environment", "--env-file"),
        (["-e", "KEY"], "environment", "'KEY' has no value"),
        (["-eKEY"], "environment", "'KEY' has no value"),
        (["--env=TASKCELL_X=1"], "environment", "TASKCELL_X"),
        (["--cgroup-parent=/"], "resource-limits", "--cgroup-parent"),
        (["--sysctl", "kernel.msgmax=1"], "kernel-settings", "--sysctl"),
        (["--pids-limit=-1"], "resource-limits", "pids"),
        (["--pids-limit", "0"], "resource-limits", "pids"),
        (["--pids-limit=99999"], "resource-limits", "pids"),
        (["--memory=0"], "resource-limits", "memory"),
        (["-m", "64g"], "resource-limits", "memory"),
        (["-m", "1m"], "resource-limits", "memory"),
        (["--memory-swap=-1"], "resource-limits", "--memory-swap"),
        (["--cpus=0"], "resource-limits", "cpus"),
        (["--cpus", "64"], "resource-limits", "cpus"),
        (["--ulimit", "core=-1"], "resource-limits", "--ulimit"),
        (["--group-add", "docker"], "groups", "--group-add"),
        (["--oom-kill-disable"], "resource-limits", "--oom-kill-disable"),
        (["--oom-score-adj=-1000"], "resource-limits", "--oom-score-adj"),
        (["--user=root"], "root-user", "root"),
        (["-u0:0"], "root-user", "0:0"),
        (["--gpus=all"], "allow-gpus", "GPUs"),
        (["--tmpfs", "/tmp"], "tmpfs", "no bound"),
        (["--tmpfs", "/tmp:size=64g"], "tmpfs", "memory limit"),
        (["--tmpfs", "/etc:size=1m"], "tmpfs", "/etc"),
        (["--tmpfs", "/tmp:size=1m,suid"], "tmpfs", "suid"),
        (["--shm-size=64g"], "tmpfs", "memory limit"),
        (["--runtime=runc"], "extra-args", "engine.runtime"),
        (["--entrypoint", "sh"], "extra-args", "its shell"),
        (["--publish", "80:80"], "extra-args", "nothing reaches a sandbox from outside"),
        (["-P"], "extra-args", "--publish-all"),
        (["-itd"], "extra-args", "--detach"),
        (["--rm", "-d"], "extra-args", "--detach"),
        (["--restart=always"], "extra-args", "--restart"),
        (["--dns", "one"], "form", "--dns"),
        (["--add-host", "db"], "form", "--add-host"),
        (["--hostname", "a b"], "form", "--hostname"),
        (["--memory=lots"], "extra-args", "must be a size"),
        (["--privilegd"], "extra-args", "--privilegd"),
        (["ubuntu"], "extra-args", "'ubuntu'"),
        (["--rm", "ubuntu", "--privileged"], "extra-args", "'ubuntu'"),
    ],
)  # fmt: skip
def test_what_would_loosen_a_sandbox_is_refused_by_a_rule_and_a_sentence_that_names_it(words, rule, says):
    caught = denial(*words)
    assert caught.rule == rule
    assert says in caught.reason
    assert caught.reason.endswith(".")


def test_an_option_that_is_refused_does_not_hide_behind_one_that_is_allowed():
    assert denial("--rm", "-m", "1g", "-w/workspace", "--privileged").rule == "privileged"


@pytest.mark.parametrize(
    "words",
    [
        ["--cap-drop=ALL"],
        ["--cap-drop", "NET_RAW"],
        ["--read-only"],
        ["--security-opt", "no-new-privileges"],
        ["--security-opt=no-new-privileges:true"],
        ["--ipc=private"],
        ["--cgroupns=private"],
        ["--privileged=false"],
        ["--oom-kill-disable=false"],
        ["--init", "-i"],
        ["-it"],
        ["--tty"],
        ["--mount", "type=bind,src=${SKILL_WORKDIR},dst=/workspace"],
        ["-v", "${SKILL_WORKDIR}:/workspace"],
        ["--no-healthcheck"],
        ["--log-driver=none"],
        ["--restart=no"],
        ["--network=none"],
        ["--rm"],
        [],
    ],
)
def test_what_says_only_what_holds_anyway_changes_nothing(words):
    assert profile(*words) == profile()
    assert Policy(Settings().policy).authorize_profile(profile(*words))


def test_options_become_the_fields_of_the_profile():
    made = profile(
        "-m=3g", "--cpus=1.5", "--pids-limit", "99", "--net=bridge", "-u", "65534:65534", "-w/srv", "--gpus=all",
        "--platform", "linux/arm64", "--rm=false", "--read-only=false", "-eA=1", "--env", "B=x=y", "--cap-add=NET_RAW",
        "--tmpfs", "/tmp:size=1m,mode=0700", "--tmpfs=/cache:size=2m", "--shm-size=3m", "-v", "/srv/data:/data:ro",
        "--uts=host", "--userns", "host",
    )  # fmt: skip
    assert (made.memory, made.cpus, made.pids, made.network) == (3 << 30, 1.5, 99, "bridge")
    assert (made.user, made.working_dir, made.gpus, made.platform) == ("65534:65534", "/srv", "all", "linux/arm64")
    assert (made.remove, made.read_only, made.environment) == (False, False, (("A", "1"), ("B", "x=y")))
    assert (made.cap_add, made.host_namespaces) == (("NET_RAW",), ("uts", "user"))
    assert made.mounts == (Mount("/srv/data", "/data", True),)
    sizes = {one.target: one for one in made.tmpfs}
    assert sizes["/tmp"] == Tmpfs("/tmp", MIB, 0o700)
    assert (sizes["/cache"].size, sizes["/dev/shm"].size) == (2 * MIB, 3 * MIB)
    assert set(sizes) == {"/tmp", "/var/tmp", "/run", "/dev/shm", "/cache"}
    assert made.refused == ()


def test_a_skills_entrypoint_may_be_given_as_an_option(tmp_path: Path):
    (tmp_path / "m.toml").write_text(
        'version = "1"\n[skills.x]\ndescription = "x"\n[skills.x.docker]\nimage = "alpine"\n'
        'extra_args = ["--entrypoint=/bin/a b"]\n'
    )
    assert skill_profile(load([tmp_path / "m.toml"], {}, ())[0], Settings()).entrypoint == ("/bin/a b",)


def test_a_key_and_an_option_that_contradict_each_other_are_refused():
    caught = denial("--cpus=1", table='cpus = "2"')
    assert (caught.rule, "'cpus'" in caught.reason) == ("extra-args", True)
    assert profile("--cpus=2", table='cpus = "2"').refused == ()
    assert profile("--cpus=2").cpus == 2.0


def test_an_option_that_can_stand_once_is_refused_when_it_stands_twice():
    assert "twice" in denial("--memory=3g", "-m", "3g").reason


def test_the_operators_runtime_may_be_named_and_no_other():
    assert profile("--runtime=runsc", engine={"runtime": "runsc"}).runtime == "runsc"
    assert denial("--runtime=runc", engine={"runtime": "runsc"}).rule == "extra-args"


def test_files_in_memory_and_the_workspace_stay_below_an_options_memory_limit():
    assert "workspace" in denial("--memory=1g").reason
    assert "workspace" in denial("--tmpfs=/cache:size=900m").reason
    assert profile("--memory=512m", workspace={"size": "64m"}).refused == ()


def test_an_unbounded_limit_is_allowed_where_the_policy_says_so():
    free = Settings.model_validate({"policy": {"require_resource_limits": False}}).policy
    made = profile("--memory=0", "--pids-limit=-1", "--cpus=0")
    assert (made.memory, made.pids, made.cpus) == (None, None, None)
    assert Policy(free).authorize_profile(made)


@pytest.mark.parametrize(
    ("words", "policy", "rule"),
    [
        (["--privileged"], {"allow_privileged": True}, "privileged"),
        (["--pid=host"], {"allow_host_namespaces": ["pid"]}, "host-namespaces"),
        (["--cap-add=NET_RAW"], {"allowed_capabilities": ["NET_RAW"]}, "capabilities"),
    ],
)
def test_what_no_sandbox_can_have_is_refused_whatever_the_policy_allows(words, policy, rule):
    assert denial(*words, policy=policy).rule == rule


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_option_of_docker_is_understood_or_refused_by_its_name(name):
    words = [f"--{name}"] if name in SWITCHES else [f"--{name}", "odd,value"]
    made = profile(*words)
    if made.refused:
        assert f"--{name}" in made.refused[0].reason or name in ("runtime", "entrypoint")
    elif made != profile():
        assert name in {"network", "user", "workdir", "gpus", "platform", "rm", "read-only", "cap-add"}
    else:
        assert name in {"cap-drop", "init", "interactive", "no-healthcheck", "rm", "read-only", "tty"}


def written(tmp_path: Path, *words: str, **environ: str) -> Profile:
    """A skill's profile with these options in its manifest."""
    (tmp_path / "m.toml").write_text(f"[skills.x]\nsource = 'docker:a'\ndocker.extra_args = {list(words)}\n")
    return skill_profile(load([tmp_path / "m.toml"], environ, ())[0], Settings())


@pytest.mark.parametrize(
    "words",
    [["-e", "TOK=${TOK}"], ["--env", "TOK=${TOK}"], ["--env=TOK=${TOK}"], ["-eTOK=${TOK}"], ["-e=TOK=${TOK}"]],
)
def test_a_variable_in_an_option_expands_as_it_does_in_its_key(tmp_path: Path, words: list[str]):
    assert written(tmp_path, *words, TOK="t0ken").environment == (("TOK", "t0ken"),)
    assert written(tmp_path, *[word.replace("}", ":-none}") for word in words]).environment == (("TOK", "none"),)
    assert "t0ken" not in repr(load([tmp_path / "m.toml"], {"TOK": "t0ken"}, ()))


@pytest.mark.parametrize(
    "words",
    [
        ["-v", "${DATA}:/d:ro"],
        ["-v${DATA}:/d:ro"],
        ["--volume=${DATA}:/d:ro"],
        ["--mount", "type=bind,src=${DATA},dst=/d,readonly"],
        ["--mount=type=bind,source=/srv,destination=/d,ro=1"],
    ],
)
def test_every_form_of_a_mount_is_the_same_mount(tmp_path: Path, words: list[str]):
    assert written(tmp_path, *words, DATA="/srv").mounts == (Mount("/srv", "/d", True),)


def test_the_tasks_files_may_be_mounted_by_an_option(tmp_path: Path):
    made = written(tmp_path, "-v", "${SKILL_WORKDIR}:/w", "--mount", "type=bind,src=${SKILL_WORKDIR},dst=/x,ro")
    assert made.mounts == (Mount(None, "/w", False), Mount(None, "/x", True))
    assert written(tmp_path, "-e", "D=${SKILL_WORKDIR}/sub").environment == (("D", "/workspace/sub"),)


def test_other_options_do_not_expand(tmp_path: Path):
    assert written(tmp_path, "--tmpfs", "${U}:size=1m", U="/x").tmpfs[-1].target == "${U}"
    assert written(tmp_path, "--user", "${U}", U="7").user == "${U}"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-e", "TOK=${TOK}"], "extra_args[1]: the variable TOK is not set in the server's environment"),
        (["--rm", "--env=TOK=${TOK:?from the vault}"], "extra_args[1]: the variable TOK is not set in the server's"),
        (["-e", "TOK=$TOK"], "extra_args[1]: '$T' is not understood; only ${VAR}"),
        (["-v", "${DATA}/x:y"], "extra_args[1]: '${DATA}/x:y' has no absolute path of the container"),
    ],
)
def test_what_cannot_expand_is_a_fault_at_its_word_that_shows_no_value(tmp_path: Path, words: list[str], says: str):
    with pytest.raises(ManifestError) as caught:
        written(tmp_path, *words, DATA="/s3cret")
    assert says in str(caught.value)
    assert "s3cret" not in str(caught.value)
