"""The engine is found where the docker command line finds it."""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskcell.engine.docker import endpoint as find_module
from taskcell.engine.docker.connection import connect
from taskcell.engine.docker.endpoint import Endpoint, find_endpoint
from taskcell.errors import EngineUnavailable


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder without an engine, and no socket of this machine's own engine in reach."""
    monkeypatch.setenv("HOME", str(tmp_path))  # the docker package reads contexts below it
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)
    monkeypatch.setattr(find_module, "SYSTEM_SOCKETS", (tmp_path / "system.sock",))
    return tmp_path


@pytest.fixture
def listening(home: Path) -> Iterator[Path]:
    path = home / ".docker/run/docker.sock"
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        yield path


def test_the_configuration_comes_before_everything(home: Path) -> None:
    endpoint = find_endpoint("tcp://configured:2375", {"DOCKER_HOST": "tcp://environment:2375", "HOME": str(home)})
    assert endpoint.url == "tcp://configured:2375"


def test_docker_host_comes_before_the_context_and_the_sockets(home: Path) -> None:
    assert find_endpoint("", {"DOCKER_HOST": "unix:///x.sock", "HOME": str(home)}).url == "unix:///x.sock"


def test_the_current_context_is_used(home: Path) -> None:
    name = "remote"
    folder = home / ".docker/contexts/meta" / hashlib.sha256(name.encode()).hexdigest()
    folder.mkdir(parents=True)
    metadata = {"Name": name, "Metadata": {}, "Endpoints": {"docker": {"Host": "tcp://far:2375"}}}
    (folder / "meta.json").write_text(json.dumps(metadata))
    (home / ".docker/config.json").write_text(json.dumps({"currentContext": name}))
    endpoint = find_endpoint("", {"HOME": str(home)})
    assert (endpoint.url, endpoint.origin) == ("tcp://far:2375", "the docker context 'remote'")
    assert find_endpoint("", {"HOME": str(home), "DOCKER_CONTEXT": name}).url == "tcp://far:2375"


def test_a_context_that_is_not_there_is_named(home: Path) -> None:
    with pytest.raises(EngineUnavailable, match="no docker context 'nowhere'"):
        find_endpoint("", {"HOME": str(home), "DOCKER_CONTEXT": "nowhere"})


def test_the_first_usual_socket_that_accepts_is_used(listening: Path) -> None:
    assert find_endpoint("", {"HOME": str(listening.parents[2])}).url == f"unix://{listening}"


def test_a_socket_file_with_nobody_behind_it_is_passed_over(home: Path) -> None:
    dead = home / ".docker/run/docker.sock"
    dead.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(dead))
    with pytest.raises(EngineUnavailable, match=r"No container engine answers \(tried .*docker\.sock"):
        find_endpoint("", {"HOME": str(home)})


def test_unreadable_certificates_are_an_error_and_never_a_plain_connection(home: Path) -> None:
    environ = {"DOCKER_HOST": "tcp://far:2376", "DOCKER_TLS_VERIFY": "1", "HOME": str(home)}
    with pytest.raises(EngineUnavailable, match="certificates"):
        find_endpoint("", environ)


def test_a_password_in_the_address_is_never_shown() -> None:
    endpoint = Endpoint("tcp://user:hunter2@127.0.0.1:1", "a test")
    assert endpoint.shown == "tcp://user:…@127.0.0.1:1"
    assert "hunter2" not in repr(endpoint)
    with pytest.raises(EngineUnavailable) as refused:
        connect(endpoint.url, {})
    assert "hunter2" not in str(refused.value)
    assert Endpoint("unix:///run/x.sock", "a test").shown == "unix:///run/x.sock"
