"""The doctor starts a sandbox of each profile, and finds what only a sandbox shows."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from dash import dash_image
from taskcell.cli.app import run

Taskcell = Callable[..., Any]
LOCAL = '[engine]\nkind = "local"\n'
SKILL = '[skills.tool]\ndescription = "A tool."\n[skills.tool.docker]\nimage = "example/tool:1"\n'


def trials(out: str) -> dict[str, tuple[str, str]]:
    """Status and detail with mend of each trial, by the profile's name, or `good`."""
    rows = [row for row in json.loads(out) if row["check"] == "trial"]
    named = {row["detail"].split("'")[1] if row["status"] == "broken" else "good": row for row in rows}
    return {name: (row["status"], f"{row['detail']} {row['mend']}") for name, row in named.items()}


def test_a_sandbox_of_each_profile_is_started(taskcell: Taskcell, tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text(SKILL + 'entrypoint = "tr"\n')
    done = taskcell("doctor", "--json", toml=f'manifests = ["m.toml"]\n{LOCAL}')
    assert done.code == 0
    assert trials(done.out) == {"good": ("ok", "A sandbox started for terminal, tool. ")}


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ('shell = ["no-such-shell", "-c"]', "below [terminal]"),
        ('shell = ["false"]', "does not run `exit 0`"),
        ('working_dir = "/no/such/folder"', "name a folder of the image in terminal.working_dir"),
    ],
)
def test_a_terminal_that_cannot_run_is_broken_with_the_key_that_mends_it(
    taskcell: Taskcell, table: str, told: str
) -> None:
    done = taskcell("doctor", "--json", toml=f"manifests = []\n{LOCAL}[terminal]\n{table}\n")
    assert done.code == 1
    status, text = trials(done.out)["terminal"]
    assert status == "broken"
    assert told in text


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ('shell = ["no-such-shell", "-c"]', "below [environments.swe]"),
        ('working_dir = "/no/such/folder"', "name a folder of the image in environments.swe.working_dir"),
        ('setup = "echo broken >&2; exit 3"', "The setup of 'terminal.swe' failed (exit 3): 'broken'."),
        ('own = ["/testbed"]', "no image with folders to give away"),
    ],
)
def test_an_environment_is_tried_with_its_setup(taskcell: Taskcell, table: str, told: str) -> None:
    environment = (
        f'[environments.swe]\nimage = "swe:1"\n{table}\n[environments.good]\nimage = "swe:1"\nsetup = "true"\n'
    )
    done = taskcell("doctor", "--json", toml=f"manifests = []\n{LOCAL}{environment}")
    assert done.code == 1
    found = trials(done.out)
    assert told in found["terminal.swe"][1]
    assert found["good"] == ("ok", "A sandbox started for terminal, terminal.good. ")


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ('entrypoint = "no-such-program"', "has no program 'no-such-program'"),
        ('entrypoint = ["./run"]', "write the absolute path as docker.entrypoint"),
        ("", "Neither the skill nor its image names a program. write the program as docker.entrypoint"),
        ('entrypoint = "tr"\nworking_dir = "/no/such"', "in docker.working_dir"),
    ],
)
def test_a_skill_without_a_program_is_broken_with_the_key_that_mends_it(
    taskcell: Taskcell, tmp_path: Path, keys: str, told: str
) -> None:
    (tmp_path / "m.toml").write_text(SKILL + keys + "\n")
    done = taskcell("doctor", "--json", toml=f'manifests = ["m.toml"]\n{LOCAL}')
    assert done.code == 1
    found = trials(done.out)
    assert told in found["tool"][1]
    assert found["good"] == ("ok", "A sandbox started for terminal. ")


def test_without_an_engine_nothing_is_tried(taskcell: Taskcell, tmp_path: Path) -> None:
    done = taskcell("doctor", "--json", toml=f'[engine]\nhost = "unix://{tmp_path}/none.sock"\n')
    assert (done.code, trials(done.out)) == (1, {})


@pytest.fixture
def odd_images(docker_api: docker.APIClient, tmp_path: Path) -> Iterator[dict[str, str]]:
    entrypoints = {"liar": "/opt/not-there", "relative": "./run"}
    names = {name: f"trial-test/{name}:{os.getpid()}" for name in entrypoints}
    file = tmp_path / "image.tar"
    file.write_bytes(dash_image())
    try:
        for name, entrypoint in entrypoints.items():
            repository, _, tag = names[name].rpartition(":")
            changes = [f"ENTRYPOINT {json.dumps([entrypoint])}"]
            docker_api.import_image(src=str(file), repository=repository, tag=tag, changes=changes)
        yield names
    finally:
        for name in names.values():
            docker_api.remove_image(name, force=True)


@pytest.mark.engine
def test_images_that_lie_about_their_program_and_what_the_engine_lacks_are_broken(
    odd_images: dict[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    skills = {
        "liar": f'image = "{odd_images["liar"]}"',
        "relative": f'image = "{odd_images["relative"]}"',
        "sound": f'image = "{odd_images["liar"]}"\nentrypoint = "/bin/sh"',
        "nobody": f'image = "{odd_images["liar"]}"\nentrypoint = "/bin/sh"\nuser = "nosuchuser"',
        "far": f'image = "{odd_images["liar"]}"\nentrypoint = "/bin/sh"\nnetwork = "no-such-network"',
    }
    text = "".join(f"[skills.{name}.docker]\n{keys}\n" for name, keys in skills.items())
    (tmp_path / "m.toml").write_text(text)
    config = tmp_path / "taskcell.toml"
    config.write_text('manifests = ["m.toml"]\n[policy]\nallow_networks = ["none", "no-such-network"]\n')
    environ = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")}
    code = run(["doctor", "--json", "--config", str(config)], environ=environ, cwd=tmp_path)
    found = trials(capfd.readouterr().out)
    assert code == 1
    assert set(found) == {"liar", "relative", "nobody", "far", "good"}
    assert "has no program '/opt/not-there'" in found["liar"][1]
    assert "write the absolute path" in found["relative"][1]
    assert "nosuchuser" in found["nobody"][1]
    assert "no-such-network" in found["far"][1]
    assert found["good"] == ("ok", "A sandbox started for sound, terminal. ")


WRONG = {
    "runtime": ('extra_args = ["--runtime", "nosuch"]', "only engine.runtime sets the runtime"),
    "platform": ('platform = "linux/s390x"', "does not match the specified platform"),
    "gpu": ('gpus = "all"', "it has no GPU support"),
    "cpus": ("cpus = 9999", "Range of CPUs"),
    "denied": ('volumes = ["/etc:/host"]', "blocked_mount_paths"),
    "pull": ("", "cannot be pulled"),
}


@pytest.mark.engine
def test_what_the_engine_or_the_policy_cannot_give_is_broken_each_with_its_sentence(
    odd_images: dict[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tables = []
    for name, (keys, _) in WRONG.items():
        image = "127.0.0.1:9/nothing:1" if name == "pull" else odd_images["liar"]
        tables.append(f'[skills.{name}.docker]\nimage = "{image}"\nentrypoint = "/bin/sh"\n{keys}\n')
    (tmp_path / "m.toml").write_text("".join(tables))
    config = tmp_path / "taskcell.toml"
    config.write_text('manifests = ["m.toml"]\n[policy]\nmax_cpus = 10000\nallow_gpus = true\n')
    environ = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")}
    assert run(["doctor", "--json", "--config", str(config)], environ=environ, cwd=tmp_path) == 1
    broken = [row["detail"] for row in json.loads(capfd.readouterr().out) if row["status"] == "broken"]
    for name, (_, told) in WRONG.items():
        assert any(name in detail and told in detail for detail in broken), name


@pytest.mark.engine
def test_a_runtime_that_the_engine_does_not_have_is_broken(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "taskcell.toml"
    config.write_text('manifests = []\n[engine]\nruntime = "nosuch"\n')
    environ = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")}
    assert run(["doctor", "--json", "--config", str(config)], environ=environ, cwd=tmp_path) == 1
    assert "does not have the configured runtime" in trials(capfd.readouterr().out)["terminal"][1]
