"""`taskcell import`: what a configuration of another program becomes, and that every key of it is accounted for."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from taskcell.cli.app import run

Taskcell = Callable[..., Any]
HERMES = """_config_version: 50
model: {default: any/model}
terminal:
  backend: docker
  docker_image: taskcell/base:latest
  cwd: ~
  timeout: 240
  lifetime_seconds: 300
  sudo_password: hunter2
  docker_forward_env: [NPM_TOKEN, "not a name"]
  docker_env: {DEBUG: s3cret-1, COUNT: 2, PRICE: "$5 a (b)", ODD: "a$b", LIST: [1]}
  docker_volumes: ["{data}:/workspace/projects", "~/d:/data:ro", "./here:/here", "cache:/cache"]
  docker_extra_args: ["--shm-size", "512m", "--privileged", "--add-host", "db:10.0.0.1", "stray", "-e", "A=b"]
  docker_network: true
  docker_run_as_host_user: true
  container_cpu: 1.5
  container_memory: 5120
  container_disk: 51200
  container_persistent: true
  font_family: x
  ssh_host: far
  singularity_image: docker://other
"""
KUBIYA = """version = "1"
[defaults]
env.LANG = "C.UTF-8"
capabilities.max_concurrent_requests = 10
[skills.git]
source = "./examples/git"
runtime = "native"
[skills.python-runner]
source = "docker:python:3.12-slim"
runtime = "docker"
description = "Runs Python."
[skills.python-runner.docker]
image = "python:3.12-slim"
entrypoint = "python3"
volumes = ["${PWD:-/tmp}:/workdir"]
working_dir = "/workdir"
memory = "512m"
gpus = "0,1"
[skills.python-runner.instances.default]
config.greeting = "hello"
[skills.python-runner.instances.loud]
env.LOUD = "yes"
"""
MINI_SWE = """agent: {step_limit: 250}
environment:
  environment_class: docker
  image: taskcell/base:latest
  cwd: /testbed
  timeout: 60
  interpreter: ["bash", "-c"]
  env: {PAGER: cat, TQDM_DISABLE: "1"}
  forward_env: [HF_TOKEN]
  run_args: ["--rm", "--cap-drop=ALL", "--gpus", "all"]
  container_timeout: 2h
  executable: podman
  pull_timeout: 120
"""


def test_a_hermes_configuration_is_moved_and_each_of_its_keys_is_accounted_for(
    taskcell: Taskcell, tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text(HERMES.replace("{data}", str(tmp_path)))
    done = taskcell("import", "hermes", "config.yaml", environ={"HOME": "/home/me"})
    assert done.code == 0
    written = tomllib.loads(done.out)
    terminal = written["terminal"]
    assert terminal["environment"] == ["NPM_TOKEN?=${NPM_TOKEN}", "DEBUG=s3cret-1", "COUNT=2", "PRICE=$5 a (b)", "A=b"]
    assert terminal["volumes"] == [
        f"{tmp_path}:/mnt/{tmp_path.name}", "~/d:/data:ro", "${SKILL_WORKDIR}:/here",
    ]  # fmt: skip
    assert terminal["extra_args"] == ["--shm-size", "512m", "--add-host", "db:10.0.0.1"]
    assert (terminal["network"], terminal["memory"], terminal["cpus"], terminal["sudo"]) == (
        "bridge", "5120m", "1.5", True,
    )  # fmt: skip
    assert written["workspace"] == {"persistent": True, "size": "51200m"}
    assert "policy" not in written
    assert "# allow_sudo = true" in done.out.splitlines()
    # No value of a variable, and no password, is in what is said; the password is not in the configuration either.
    assert "s3cret" not in done.err
    assert "hunter2" not in done.err + done.out
    keys = [line.split(None, 1)[1] for line in done.err.splitlines() if line.split()[0] in ("kept", "changed", "lost")]
    for key in ("backend", "docker_image", "cwd", "sudo_password", "container_disk", "font_family", "ssh_host"):
        assert len([one for one in keys if one.startswith(f"terminal.{key}:")]) == 1, key
    lost = [line for line in done.err.splitlines() if line.startswith("lost")]
    for part in ("docker_env.ODD", "docker_env.LIST", "cache:/cache", "--privileged", "stray", "not a name", "model"):
        assert any(part in line for line in lost), part


def test_a_folder_at_the_workspace_becomes_the_workspace(taskcell: Taskcell, tmp_path: Path) -> None:
    (tmp_path / "in").write_text(
        "terminal: {docker_volumes: ['/home/me/site:/workspace'], container_persistent: true, container_disk: 9}\n"
    )
    done = taskcell("import", "hermes", "in")
    assert tomllib.loads(done.out)["workspace"] == {"folder": "/home/me/site"}
    assert "kept     terminal.container_persistent: workspace.folder" in done.err


def test_what_the_policy_must_allow_is_proposed_or_written(taskcell: Taskcell, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("terminal: {docker_network: true, container_memory: 8192}\n")
    proposed = taskcell("import", "hermes", "config.yaml").out
    without_marks = proposed.replace("\n# ", "\n").replace("\n#", "\n#")
    allowed = taskcell("import", "hermes", "config.yaml", "--allow").out
    for text in (without_marks.replace("\nWhat the", "\n# What the").replace("\n  The", "\n#   The"), allowed):
        assert tomllib.loads(text)["policy"] == {"allow_networks": ["none", "bridge"], "max_memory": "8192m"}


def test_a_manifest_of_the_skill_engine_is_moved(taskcell: Taskcell, tmp_path: Path) -> None:
    (tmp_path / ".skill-engine.toml").write_text(KUBIYA)
    done = taskcell("import", "kubiya", ".skill-engine.toml", "--into", "cells", "--allow")
    assert done.code == 0
    written = tmp_path / "cells/manifests/skill-engine.toml"
    assert written.stat().st_mode & 0o777 == 0o600  # what it takes over may be secrets
    manifest = tomllib.loads(written.read_text())
    docker = manifest["skills"]["python-runner"]["docker"]
    assert docker["volumes"] == ["${SKILL_WORKDIR}:/workdir"]
    assert docker["gpus"] == "device=0,1"
    assert docker["environment"] == ["LANG=C.UTF-8"]
    assert list(manifest["skills"]) == ["python-runner"]
    assert tomllib.loads((tmp_path / "cells/taskcell.toml").read_text())["policy"] == {"allow_gpus": True}
    assert "lost     skills.git: 'native' runs programs of the host" in done.err
    assert "instances.default.config.greeting" in done.err
    checked = taskcell("skills", "check", "--config", "cells/taskcell.toml", toml=None)
    assert (checked.code, checked.out.splitlines()[-1]) == (0, "2 skills with 2 tools are good.")


def test_a_configuration_of_mini_swe_agent_is_moved(taskcell: Taskcell, tmp_path: Path) -> None:
    (tmp_path / "mini.yaml").write_text(MINI_SWE)
    done = taskcell("import", "mini-swe", "mini.yaml")
    written = tomllib.loads(done.out)
    assert written["terminal"]["shell"] == ["bash", "-c"]
    assert written["terminal"]["environment"] == ["PAGER=cat", "TQDM_DISABLE=1", "HF_TOKEN?=${HF_TOKEN}"]
    assert written["terminal"]["extra_args"] == ["--rm", "--cap-drop=ALL", "--gpus", "all"]
    assert (written["terminal"]["working_dir"], written["pool"]["idle_ttl"]) == ("/testbed", "2h")
    fates = {line.split()[1].rstrip(":"): line.split()[0] for line in done.err.splitlines()}
    assert fates["environment.executable"] == "changed"
    assert fates["agent"] == "lost"


def test_a_line_of_docker_run_becomes_a_skill(taskcell: Taskcell) -> None:
    line = (
        "sudo docker run -d --name x -it --rm -v $(pwd):/w:ro -e A=1 -e B -u $(id) --network bridge a.example/b/c:3 ls"
    )
    done = taskcell("import", "docker-run", line.replace("$(id)", "'$(id -u)'"))
    manifest = tomllib.loads(done.out.split("# --- manifests/c.toml\n")[1])
    assert manifest["skills"]["c"]["docker"] == {
        "image": "a.example/b/c:3",
        "command": ["ls"],
        "extra_args": ["-it", "--rm", "--network", "bridge"],
        "volumes": ["${SKILL_WORKDIR}:/w:ro"],
        "environment": ["A=1", "B?=${B}"],
    }
    assert "# allow_networks = " in done.out
    for option in ("-d", "--name", "-u"):
        assert f"lost     {option}:" in done.err


@pytest.mark.parametrize(
    ("words", "text", "says"),
    [
        (["hermes", "in"], None, "cannot be read: No such file or directory"),
        (["hermes", "in"], "a: [", "is not YAML"),
        (["hermes", "in"], "- a\n", "is not a table of keys"),
        (["hermes", "in"], "\x00\x01", "is not YAML"),
        (["mini-swe", "in"], "a" * (1 << 20) + "aa", "is larger than"),
        (["hermes", "in"], "[" * 5000, "is not YAML"),
        (["kubiya", "in"], "a = ", "is not valid TOML"),
        (["docker-run", "docker run --rm"], "", "names no image"),
        (["docker-run", "docker run 'x"], "", "close its quotes"),
        (["docker-run", "docker run -i --rm mcp/time"], "", "add it to your client"),
    ],
)
def test_what_cannot_be_moved_is_one_sentence(
    taskcell: Taskcell, tmp_path: Path, words: list[str], text: str | None, says: str
) -> None:
    if text is not None:
        (tmp_path / "in").write_text(text)
    done = taskcell("import", *words)
    assert (done.code, done.out) == (1, "")
    assert len(done.err.splitlines()) == 1
    assert says in done.err


@pytest.mark.parametrize(
    "text",
    [
        "terminal: 3",
        "terminal: {docker_env: 3, docker_volumes: {a: b}, timeout: soon, container_cpu: [], container_memory: x}",
        "terminal: {docker_extra_args: ['-v'], docker_forward_env: [1], cwd: [], backend: {}}",
        "terminal: {docker_volumes: ['', ':', '/a', 'a:b:c:d', '/a:/etc'], 1: 2, null: x}",
        "terminal: {container_disk: true, container_memory: -1, docker_shm_size: huge, docker_image: 'A B'}",
    ],
)
def test_odd_values_are_lost_with_a_line_and_never_a_traceback(taskcell: Taskcell, tmp_path: Path, text: str) -> None:
    (tmp_path / "in").write_text(text)
    for source in ("hermes", "mini-swe"):
        done = taskcell("import", source, "in")
        assert done.code == 0
        tomllib.loads(done.out)
        assert "Internal error" not in done.err


def test_nothing_is_overwritten(taskcell: Taskcell, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("terminal: {}\n")
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells/taskcell.toml").write_text("mine")
    done = taskcell("import", "hermes", "in", "--into", "cells")
    assert done.code == 1
    assert "would be overwritten" in done.err
    assert (tmp_path / "cells/taskcell.toml").read_text() == "mine"


def edited(file: Path, *pairs: tuple[str, str]) -> None:
    text = file.read_text()
    for before, after in pairs:
        assert before in text
        text = text.replace(before, after)
    file.write_text(text)


@pytest.mark.engine
def test_a_hermes_configuration_runs_after_one_command_and_one_edit(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o755)
    (data / "note").write_text("from the host\n")
    (tmp_path / "config.yaml").write_text(
        "terminal:\n  backend: docker\n  docker_image: taskcell/base:latest\n  timeout: 60\n"
        f"  docker_volumes: ['{data}:/data:ro']\n  docker_env: {{DEBUG: '1'}}\n  docker_forward_env: [NPM_TOKEN]\n"
        "  docker_network: false\n  container_memory: 5120\n  container_persistent: false\n"
    )
    environ = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state"), "NPM_TOKEN": "t"}
    assert run(["import", "hermes", "config.yaml", "--into", "cells"], environ=environ, cwd=tmp_path) == 0
    config = tmp_path / "cells/taskcell.toml"
    edited(config, ("# [policy]", "[policy]"), ("# max_", "max_"), ("# allowed_mount", "allowed_mount"))
    capfd.readouterr()
    line = "cat /data/note && echo $DEBUG $NPM_TOKEN && touch /workspace/x"
    words = ["exec", "--config", str(config), "--", "bash", "-c", line]
    assert run(words, environ=environ, cwd=tmp_path) == 0
    assert capfd.readouterr().out == "from the host\n1 t\n"


@pytest.mark.engine
def test_three_manifests_of_the_skill_engine_run_after_one_command_and_one_edit_each(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    environ = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")}
    programs = {
        "python-runner": ("python3", ["-c", "print(6 * 7)"], "42\n"),
        "json": ("jq", ["-n", "[1, 2] | length"], "2\n"),
        "words": ("wc", ["-c", "/dev/null"], "0 /dev/null\n"),
    }
    for name, (program, arguments, printed) in programs.items():
        (tmp_path / f"{name}.toml").write_text(
            f'[skills.{name}]\nsource = "docker:example/{name}:1"\nruntime = "docker"\n[skills.{name}.docker]\n'
            f'image = "example/{name}:1"\nentrypoint = "{program}"\nvolumes = ["${{PWD}}:/workdir"]\n'
            'working_dir = "/workdir"\nmemory = "512m"\nnetwork = "none"\nrm = true\n'
        )
        assert run(["import", "kubiya", f"{name}.toml", "--into", name], environ=environ, cwd=tmp_path) == 0
        # The one edit: no registry can be reached here.
        edited(tmp_path / name / f"manifests/{name}.toml", (f"example/{name}:1", "taskcell/base:latest"))
        capfd.readouterr()
        config = str(tmp_path / name / "taskcell.toml")
        words = ["exec", "--config", config, "--skill", name, "--", *arguments]
        assert run(words, environ=environ, cwd=tmp_path) == 0
        assert capfd.readouterr().out == printed
