"""Manifests of the skill engine load as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskcell.skills.manifest import Manifests, read

#: The forms that the forerunner's examples have: every runtime, instances, defaults, services, dotted keys.
MANIFEST = """version = "1"

[defaults]
capabilities.network_access = false
capabilities.max_concurrent_requests = 10
env.LANG = "C.UTF-8"

[skills.git]
source = "./examples/native-skills/git-skill"
description = "Git"
runtime = "native"
[skills.git.instances.default]

[skills.hub]
source = "./examples/wasm-skills/hub-skill"
[skills.hub.instances.personal]
env.TOKEN = "${HUB_TOKEN}"
config.api_url = "https://api.example.org"
capabilities.network_access = true

[skills.kubernetes]
source = "github:example/kube@v1.0.0"
ref = "main"
[[skills.kubernetes.services]]
name = "proxy"
optional = false
default_port = 8001

[skills.redis]
source = "docker:redis:7-alpine"
runtime = "docker"
description = "Redis CLI client"
[skills.redis.docker]
image = "redis:7-alpine"
entrypoint = "redis-cli"
environment = ["A=table"]
network = "bridge"
memory = "128m"
rm = true
[[skills.redis.services]]
name = "redis"
[skills.redis.instances.default]
env.A = "own"
[skills.redis.instances.prod]
config.host = "db"
env.B = "${NOT_SET}"

[skills.ffmpeg]
source = "docker:linuxserver/ffmpeg:latest"
runtime = "docker"
[skills.ffmpeg.docker]
image = "linuxserver/ffmpeg:latest"
entrypoint = "ffmpeg"
volumes = ["${PWD}:/workdir"]
working_dir = "/workdir"
cpus = "4"
"""


def found(folder: Path, text: str = MANIFEST) -> Manifests:
    (folder / "m.toml").write_text(text)
    return read([folder / "m.toml"], {"PWD": "/home/me"}, ())


def test_a_manifest_with_every_form_has_no_fault_and_its_container_skills_are_tools(tmp_path: Path) -> None:
    manifests = found(tmp_path)
    assert manifests.faults == ()
    redis, ffmpeg = manifests.skills
    assert (redis.name, redis.environment) == ("redis", (("LANG", "C.UTF-8"), ("A", "table"), ("A", "own")))
    assert (ffmpeg.name, ffmpeg.description) == ("ffmpeg", "Run `ffmpeg` of the image linuxserver/ffmpeg:latest.")
    assert ffmpeg.mounts[0].source == "/home/me"


def test_what_no_container_runs_and_what_lacks_a_variable_is_left_out_with_the_reason(tmp_path: Path) -> None:
    reasons = {skill.name: skill.reasons[0].removeprefix(f"{tmp_path}/") for skill in found(tmp_path).left_out}
    assert list(reasons) == ["git", "hub", "kubernetes", "redis_prod"]
    assert reasons["git"].startswith("m.toml:11: skills.git.runtime: 'native' runs programs of the host")
    assert reasons["hub"].startswith("m.toml:15: skills.hub.source: 'wasm' runs WebAssembly components")
    assert "the variable NOT_SET is not set" in reasons["redis_prod"]


def test_keys_without_an_effect_are_named_with_what_replaces_them(tmp_path: Path) -> None:
    notes = [note.removeprefix(f"{tmp_path}/m.toml:") for note in found(tmp_path).notes]
    assert [note.split(": ")[1] for note in notes] == [
        "defaults.capabilities.max_concurrent_requests",
        "skills.redis.services",
        "skills.redis.instances.prod.config.host",
    ]
    assert "docker.network" in notes[1]
    assert "docker.environment" in notes[2]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[skills.x]\nsource = "docker:a"\nenv.A = "b"\n', "skills.x.env: unknown key"),
        ('[skills.x]\nsource = "docker:a"\nruntime = "podman"\n', "skills.x.runtime: must be"),
        ('[defaults]\nenv = ["A=b"]\n', "defaults.env: unknown key; did you mean 'environment'?"),
        ("[defaults]\ncapabilities.root = true\n", "defaults.capabilities: unknown key"),
        ('[skills.x]\nsource = "docker:a"\n[skills.x.instances.y]\nenv.A = 3\n', "instances.y.env: unknown key"),
        ('[skills.x]\nsource = "elsewhere"\n', "skills.x.source: must be 'docker:IMAGE'"),
    ],
)
def test_what_the_forerunner_does_not_have_either_stays_a_fault(tmp_path: Path, text: str, says: str) -> None:
    assert any(says in fault for fault in found(tmp_path, text).faults)


@pytest.mark.parametrize(
    ("docker", "key"),
    [
        ('image = "mcp/fetch"', "image"),
        ('image = "example/files-mcp-server:1"', "image"),
        ('image = "python:3"\ncommand = ["uvx", "mcp-server-time"]', "command"),
        ('image = "node:22"\nentrypoint = ["npx", "-y", "@modelcontextprotocol/server-x"]', "entrypoint"),
    ],
)
def test_an_mcp_server_is_left_out_and_the_reason_says_where_it_belongs(tmp_path: Path, docker: str, key: str) -> None:
    (skill,) = found(tmp_path, f"[skills.x.docker]\n{docker}\n").left_out
    assert f"skills.x.docker.{key}: " in skill.reasons[0]
    assert "add it to your client beside taskcell" in skill.reasons[0]


@pytest.mark.parametrize(
    "docker",
    [
        'image = "mcp/tools"\nentrypoint = "jq"',
        'image = "example/compcp:1"',
        'image = "python:3"\ncommand = ["/mcp/tool.py"]',
        'image = "mcp/tools"\nextra_args = ["--entrypoint", "jq"]',
    ],
)
def test_what_only_resembles_an_mcp_server_is_a_skill(tmp_path: Path, docker: str) -> None:
    assert [skill.name for skill in found(tmp_path, f"[skills.x.docker]\n{docker}\n").skills] == ["x"]
