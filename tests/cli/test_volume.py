"""`taskcell volume`: a person sees and deletes what tasks share on the engine's disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from observe import marker
from taskcell.cli.app import run
from taskcell.engine.docker.volume_names import shared_name

LOCAL = 'manifests = []\n[engine]\nkind = "local"\n'


def taskcell(tmp_path: Path, toml: str, *words: str) -> int:
    (tmp_path / "taskcell.toml").write_text(toml)
    environ = {"XDG_STATE_HOME": str(tmp_path / "state"), "HOME": str(tmp_path)}
    return run(["volume", *words, "--config", str(tmp_path / "taskcell.toml")], environ=environ, cwd=tmp_path)


def test_an_engine_without_volumes_has_none_to_show_and_none_to_delete(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert taskcell(tmp_path, LOCAL, "list") == 0
    assert capsys.readouterr().out.startswith("No named volumes: ")
    assert taskcell(tmp_path, LOCAL, "rm", "cache") == 1
    assert "No volume 'cache'; `taskcell volume list` shows them." in capsys.readouterr().err
    assert taskcell(tmp_path, LOCAL, "rm") == 2
    assert "Name volumes, or give --all." in capsys.readouterr().err


@pytest.fixture
def deployment(docker_api: docker.APIClient) -> Iterator[str]:
    """Its person has two volumes, of which a container mounts one, and another principal has one."""
    name, made = f"volumes-{marker()[:9]}", []
    for principal, volume in (("local", "cache"), ("local", "busy"), ("ann", "cache")):
        labels = {"taskcell.deployment": name, "taskcell.kind": "shared", "taskcell.volume": volume}
        made.append(docker_api.create_volume(shared_name(name, principal, volume), labels=labels)["Name"])
    host = docker_api.create_host_config(binds=[f"{made[1]}:/busy"])
    container = docker_api.create_container("taskcell/base:latest", ["true"], host_config=host)["Id"]
    try:
        yield name
    finally:
        docker_api.remove_container(container, force=True)
        for one in docker_api.volumes(filters={"label": f"taskcell.deployment={name}"})["Volumes"] or ():
            docker_api.remove_volume(one["Name"])


@pytest.mark.engine
def test_volumes_are_listed_with_their_size_and_deleted_unless_something_mounts_them(
    deployment: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toml = f'deployment = "{deployment}"\nmanifests = []\n'
    assert taskcell(tmp_path, toml, "list", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    # Whether the engine has counted a new volume's files yet is its own affair.
    seen = [(one["name"], one["is_local"], one["containers"]) for one in found]
    assert sorted(seen) == [("busy", True, 1), ("cache", False, 0), ("cache", True, 0)]
    assert taskcell(tmp_path, toml, "rm", "cache", "busy") == 1
    assert "Sandboxes mount 'busy'; close them first" in capsys.readouterr().err
    assert taskcell(tmp_path, toml, "rm", shared_name(deployment, "ann", "cache")) == 0
    assert taskcell(tmp_path, toml, "list") == 0
    rows = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert rows == [["1", "volume"], ["NAME", "PRINCIPAL"], ["busy", "local"], ["cache", "local"]]
    assert taskcell(tmp_path, toml, "rm", "cache") == 0
    assert capsys.readouterr().out == "1 volume deleted.\n"
