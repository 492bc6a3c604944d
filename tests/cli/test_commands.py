"""The commands that look and explain, and run nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Taskcell = Callable[..., Any]
LOCAL = '[engine]\nkind = "local"\n'
SKILL = """version = "1"
[skills.upper]
description = "Make text upper case. It reads standard input."
source = "docker:example/upper:1"
runtime = "docker"
[skills.upper.docker]
entrypoint = ["tr", "a-z", "A-Z"]
"""


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    folder = tmp_path / "manifests"
    folder.mkdir()
    (folder / "upper.toml").write_text(SKILL)
    return folder


def test_skills_are_listed_with_image_and_first_sentence(taskcell: Taskcell, manifests: Path) -> None:
    done = taskcell("skills", "list", toml=LOCAL)
    assert done.code == 0
    (line,) = done.out.splitlines()
    assert line.startswith("upper ")
    assert "example/upper:1" in line
    assert line.endswith("Make text upper case.")


def test_skills_are_listed_as_json(taskcell: Taskcell, manifests: Path) -> None:
    (row,) = json.loads(taskcell("skills", "list", "--json", toml=LOCAL).out)
    assert (row["tool"], row["skill"]) == ("upper", "upper")


def test_no_skills_are_no_error(taskcell: Taskcell) -> None:
    done = taskcell("skills", "list")
    assert done.code == 0
    assert "manifests" in done.out
    assert json.loads(taskcell("skills", "list", "--json").out) == []


def test_good_manifests_are_counted(taskcell: Taskcell, manifests: Path) -> None:
    done = taskcell("skills", "check", toml=LOCAL)
    assert (done.code, done.out) == (0, "1 skill with 1 tool is good.\n")


def test_each_fault_of_a_manifest_is_a_line_with_file_line_and_key(taskcell: Taskcell, manifests: Path) -> None:
    (manifests / "bad.toml").write_text(SKILL.replace("upper", "lower").replace("entrypoint", "entrypont"))
    (manifests / "worse.toml").write_text("version = \n")
    done = taskcell("skills", "check", toml=LOCAL)
    assert done.code == 1
    assert done.out == ""
    assert len(done.err.splitlines()) == 2
    assert "bad.toml:7" in done.err
    assert "entrypont" in done.err
    assert "worse.toml" in done.err


REFUSED = """
[skills.odd]
docker.image = "python:3.12"
docker.network = "bridge"
docker.memory = "64g"
docker.volumes = ["/etc/passwd:/x"]
docker.extra_args = ["--privileged", "--device", "/dev/x"]
[skills.lacking]
source = "docker:x"
docker.environment = ["A=${NOPE}", "B=${NEITHER:?of the operator}"]
"""


def test_a_check_of_manifests_names_everything_that_keeps_a_skill_from_running(
    taskcell: Taskcell, manifests: Path
) -> None:
    (manifests / "odd.toml").write_text(REFUSED)
    (manifests / "worse.toml").write_text("version = 1\n")
    done = taskcell("skills", "check", toml=LOCAL)
    assert done.code == 1
    told = [line.removeprefix(f"taskcell: {manifests}/") for line in done.err.splitlines()]
    assert [line.split(": ")[:2] for line in told] == [
        ["worse.toml:1", "version"],
        ["odd.toml:10", "skills.lacking.docker.environment[0]"],
        ["odd.toml:10", "skills.lacking.docker.environment[1]"],
        ["odd.toml:7", "skills.odd.docker.extra_args"],
        ["odd.toml:7", "skills.odd.docker.extra_args"],
        ["odd.toml:4", "skills.odd.docker.network"],
        ["odd.toml:5", "skills.odd.docker.memory"],
        ["odd.toml:6", "skills.odd.docker.volumes"],
        ["odd.toml:6", "skills.odd.docker.volumes"],
    ]
    assert told[5].endswith(
        "'bridge' is not in policy.allow_networks; the operator can add 'bridge' to policy.allow_networks, or leave "
        "the network out, for none (the policy's rule 'allow-networks')"
    )


def test_tools_are_listed_with_their_cost_and_others_with_the_reason(taskcell: Taskcell, manifests: Path) -> None:
    (manifests / "odd.toml").write_text(REFUSED)
    toml = LOCAL + '[tools]\nhide = ["edit_file"]\n'
    rows = {row["tool"]: row for row in json.loads(taskcell("tools", "--json", toml=toml).out)}
    offered = {name for name, row in rows.items() if row["offered"]}
    assert set(rows) - offered == {"odd", "lacking", "edit_file"}
    assert {"terminal", "upper"} < offered
    assert all(rows[name]["characters"] > 300 and rows[name]["tokens"] > 75 for name in offered)
    assert "--privileged" in rows["odd"]["why"]
    assert "the variable NOPE is not set" in rows["lacking"]["why"]
    assert rows["edit_file"]["why"] == "[tools] hides it"
    text = taskcell("tools", toml=toml).out
    assert f"{len(offered)} tools are offered: " in text
    assert "\nNot offered:\nedit_file: [tools] hides it; change 'only' or 'hide'.\n" in text


def test_tools_are_listed_though_the_engine_does_not_answer(
    taskcell: Taskcell, tmp_path: Path, manifests: Path
) -> None:
    (manifests / "upper.toml").write_text(SKILL.replace("example/upper:1", "taskcell/upper:latest"))
    done = taskcell("tools", toml=f'[engine]\nhost = "unix://{tmp_path}/none.sock"\n')
    assert done.code == 0
    assert "terminal" in done.out
    assert "engine does not answer" in done.err


def test_a_command_in_a_skill_that_lacks_a_variable_says_so(taskcell: Taskcell, manifests: Path) -> None:
    (manifests / "odd.toml").write_text(REFUSED)
    done = taskcell("exec", "--skill", "lacking", "--", "true", toml=LOCAL)
    assert done.code != 0
    assert "The skill 'lacking' is left out" in done.err
    assert "the variable NOPE is not set" in done.err


def test_the_doctor_says_which_skill_lacks_a_variable(taskcell: Taskcell, manifests: Path) -> None:
    (manifests / "odd.toml").write_text(REFUSED)
    done = taskcell("doctor", toml=LOCAL)
    assert done.code == 1
    assert "The skill 'lacking' is left out." in done.out
    assert "the variable NOPE is not set" in done.out


RULE = '[[policy.rules]]\nname = "no-rm"\ncommand = "rm "\neffect = "deny"\nreason = "Never."\n'


@pytest.mark.parametrize(
    ("line", "said"), [("rm x", "deny, by the rule 'no-rm': Never."), ("ls", "allow, by the rule")]
)
def test_the_policys_decision_is_told_with_rule_and_reason(taskcell: Taskcell, line: str, said: str) -> None:
    done = taskcell("policy", "explain", "terminal", json.dumps({"command": line}), toml=LOCAL + RULE)
    assert done.code == 0
    assert done.out.startswith(said)


def test_a_file_tools_call_is_explained_by_its_absolute_path(taskcell: Taskcell) -> None:
    rule = RULE.replace("rm ", "^/workspace/keys$")
    for path, said in (("a/../keys", "deny, by the rule 'no-rm'"), ("a", "allow")):
        done = taskcell("policy", "explain", "read_file", json.dumps({"path": path}), toml=LOCAL + rule)
        assert done.out.startswith(said)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"action": "write", "process_id": "p1", "data": "rm x\n"}, "deny, by the rule 'no-rm'"),
        ({"action": "write", "process_id": "p1", "data": "ls\n"}, "allow, by the rule 'default'"),
        ({"action": "poll", "process_id": "p1"}, "allow, by the rule 'default': The call runs no command"),
    ],
)
@pytest.mark.parametrize("tool", ["process", "terminal", "*"])
def test_what_is_written_to_a_process_is_explained_as_a_command(
    taskcell: Taskcell, arguments: dict[str, str], said: str, tool: str
) -> None:
    rule = RULE + f'tool = "{tool}"\n'
    done = taskcell("policy", "explain", "process", json.dumps(arguments), toml=LOCAL + rule)
    assert done.out.startswith(said)


def test_the_policys_decision_is_told_as_json(taskcell: Taskcell) -> None:
    done = taskcell("policy", "explain", "--json", "terminal", '{"command": "rm x"}', toml=LOCAL + RULE)
    assert json.loads(done.out) == {"effect": "deny", "rule": "no-rm", "reason": "Never."}


@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [
        ("termnal", "{}", "'terminal'"),
        ("terminal", "{", "JSON"),
        ("terminal", "[]", "object"),
        ("terminal", "{}", "command"),
        ("terminal", "[" * 100_000, "JSON"),
    ],
)
def test_a_call_that_cannot_be_judged_is_a_sentence(taskcell: Taskcell, tool: str, arguments: str, said: str) -> None:
    done = taskcell("policy", "explain", tool, arguments)
    assert done.code == 1
    assert said in done.err
    assert len(done.err.splitlines()) == 1


def test_the_doctor_finds_a_good_set_up_good_and_says_where_there_is_no_isolation(taskcell: Taskcell) -> None:
    done = taskcell("doctor", "--json")
    checks = {row["check"]: row for row in json.loads(done.out)}
    assert done.code == 0
    assert {"configuration", "manifests", "policy", "limits", "supervisor", "engine"} <= set(checks)
    assert checks["supervisor"]["status"] == "ok"
    assert checks["engine"]["status"] == "weak"
    assert "no isolation" in checks["engine"]["detail"]


def test_the_doctor_says_each_thing_on_one_line_with_its_mend(taskcell: Taskcell) -> None:
    done = taskcell("doctor")
    assert all(line.split()[0] in ("ok", "weak", "broken") for line in done.out.splitlines())
    assert "Mend: set engine.kind to 'docker'." in done.out


def test_the_doctor_finds_a_set_up_without_skills_weak(taskcell: Taskcell) -> None:
    checks = {row["check"]: row for row in json.loads(taskcell("doctor", "--json").out)}
    assert checks["manifests"]["status"] == "weak"
    assert "0 skills" in checks["manifests"]["detail"]


def test_the_doctor_judges_mounts_of_the_servers_own_files(taskcell: Taskcell, tmp_path: Path) -> None:
    text = LOCAL + f'[terminal]\nvolumes = ["{tmp_path}:/data{{}}"]\n[policy]\nallowed_mount_roots = ["{tmp_path}"]\n'
    done = taskcell("doctor", toml=text.format(""))
    assert done.code == 1
    assert "own-files" in done.out
    call = ("policy", "explain", "terminal", '{"command": "ls"}')
    assert "own-files" in taskcell(*call, toml=text.format("")).out
    assert "own-files" not in taskcell(*call, toml=text.format(":ro")).out


def test_the_doctor_finds_a_faulty_configuration_broken(taskcell: Taskcell) -> None:
    done = taskcell("doctor", toml="[engine]\nkid = 1\n")
    assert done.code == 1
    assert "broken configuration" in done.out
    assert "kid" in done.out


def test_the_doctor_finds_a_faulty_manifest_broken_and_looks_on(taskcell: Taskcell, manifests: Path) -> None:
    (manifests / "bad.toml").write_text("nonsense = 1\n")
    done = taskcell("doctor", toml=LOCAL)
    assert done.code == 1
    assert "broken manifests" in done.out
    assert "supervisor" in done.out


def test_the_doctor_finds_a_profile_that_the_policy_refuses_broken(taskcell: Taskcell) -> None:
    done = taskcell("doctor", toml=LOCAL + '[terminal]\nnetwork = "bridge"\n')
    assert done.code == 1
    assert "broken policy" in done.out
    assert "'terminal'" in done.out


def test_the_doctor_finds_an_engine_that_does_not_answer_broken(taskcell: Taskcell, tmp_path: Path) -> None:
    done = taskcell("doctor", toml=f'[engine]\nhost = "unix://{tmp_path}/none.sock"\n')
    assert done.code == 1
    assert "broken engine" in done.out


def test_an_engine_without_images_builds_none(taskcell: Taskcell) -> None:
    done = taskcell("image", "build")
    assert done.code == 1
    assert "engine.kind" in done.err


def test_the_doctor_says_where_the_password_for_sudo_comes_from_and_not_what_it_is(
    taskcell: Taskcell, tmp_path: Path
) -> None:
    toml = LOCAL + "[terminal]\nsudo = true\n[policy]\nallow_sudo = true\n"
    secret = tmp_path / "secret"
    secret.write_text("hunter2\n")
    secret.chmod(0o600)

    def said(**more: Any) -> str:
        rows = {row["check"]: row for row in json.loads(taskcell("doctor", "--json", **more).out)}
        assert rows["sudo"]["status"] == "ok"
        return str(rows["sudo"]["detail"])

    assert "terminal; the password is random for each sandbox" in said(toml=toml)
    assert "secret" in said(toml=f'{toml}[sudo]\npassword_file = "{secret}"\n')
    assert "hunter2" not in said(toml=f'{toml}[sudo]\npassword_file = "{secret}"\n')
    from_variable = said(toml=toml, environ={"TASKCELL__SUDO__PASSWORD": "hunter2"})
    assert "comes from the environment" in from_variable
    assert "hunter2" not in from_variable
    secret.chmod(0o644)
    done = taskcell("doctor", toml=f'{toml}[sudo]\npassword_file = "{secret}"\n')
    assert done.code == 1
    assert "run `chmod 600` on it" in done.out


def test_the_engine_without_isolation_gives_nobody_sudo(taskcell: Taskcell) -> None:
    done = taskcell("exec", "--", "true", toml=LOCAL + "[terminal]\nsudo = true\n[policy]\nallow_sudo = true\n")
    assert done.code != 0
    assert "The local engine has no sudo to give" in done.err


def test_the_doctor_says_where_persistent_files_are_and_that_nothing_bounds_them(
    taskcell: Taskcell, tmp_path: Path
) -> None:
    keys = '[workspace]\npersistent = true\nroot = "{root}"\n'
    (bounds,) = workspace_checks(taskcell("doctor", "--json", toml=LOCAL + keys.format(root=tmp_path / "work")))
    assert bounds["status"] == "weak"
    assert "nothing holds a task to 1 GiB" in bounds["detail"]
    (refused,) = workspace_checks(taskcell("doctor", "--json", toml=LOCAL + keys.format(root="/root/work")))
    assert refused["status"] == "broken"
    assert "blocked-mount-paths" in refused["detail"]


def workspace_checks(done: Any) -> list[dict[str, str]]:
    return [row for row in json.loads(done.out) if row["check"] == "workspace"]


@pytest.mark.parametrize("asked", ["site", "~/site", "{}/site"])
def test_folder_is_taken_from_the_current_folder_or_the_home(taskcell: Taskcell, tmp_path: Path, asked: str) -> None:
    done = taskcell("doctor", "--json", "--folder", asked.format(tmp_path), environ={"HOME": str(tmp_path)})
    (row,) = [row for row in json.loads(done.out) if row["check"] == "workspace"]
    assert (row["status"], f"'{tmp_path}/site' does not exist; make it" in row["detail"]) == ("broken", True)
    assert done.code == 1


def test_a_server_does_not_start_in_a_folder_that_cannot_be_the_workspace(taskcell: Taskcell, tmp_path: Path) -> None:
    for asked, says in (("/", "The whole file system of the host"), ("none", "does not exist")):
        done = taskcell("exec", "--folder", asked, "--", "true")
        assert (done.code, says in done.err, "Traceback" in done.err) == (1, True, False), done.err


def test_a_command_works_in_the_folder_that_is_named(taskcell: Taskcell, tmp_path: Path) -> None:
    project = tmp_path / "site"
    project.mkdir()
    if os.getuid() == 0:  # whose folders are refused
        os.chown(project, 12345, 12345)
    project.chmod(0o777)  # no command of a sandbox passes over modes
    environ = {"XDG_STATE_HOME": str(tmp_path / "state"), "HOME": str(tmp_path / "home")}
    done = taskcell("exec", "--folder", "site", "--", "echo made > made.txt; pwd", environ=environ)
    assert (done.code, done.out) == (0, f"{project}\n"), done.err
    assert (project / "made.txt").read_text() == "made\n"
