"""The volume with the supervisor: a server that dies while it fills it keeps nobody waiting."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import docker
import pytest

from observe import HOST_TIMEOUT
from taskcell.engine.docker import living, supervisor_volume
from taskcell.engine.docker.supervisor_volume import FILL_TIMEOUT, SupervisorVolumes

IMAGE = "taskcell/base:latest"
#: Seconds for one container to be created, filled and removed on a busy machine.
SOON = FILL_TIMEOUT / 2
#: Makes the container that fills a volume, as a server does, and waits for its end.
FILLER = """
import sys, docker
from taskcell.engine.docker.supervisor_volume import SupervisorVolumes
client = docker.APIClient(version="auto")
client.create_volume(sys.argv[1])
SupervisorVolumes(client)._create_carrier(sys.argv[1], sys.argv[2])
print("fills", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def name(docker_api: docker.APIClient) -> Iterator[str]:
    """A volume of our own, and no container of its name afterwards."""
    made = f"taskcell-test-supervisor-{secrets.token_hex(8)}"
    yield made
    for found in docker_api.containers(all=True, filters={"name": made}):
        docker_api.remove_container(found["Id"], force=True, v=True)
    docker_api.remove_volume(made, force=True)


@pytest.fixture
def image(docker_api: docker.APIClient) -> str:
    return str(docker_api.inspect_image(IMAGE)["Id"])


@pytest.fixture
def filler(name: str, image: str) -> Iterator[subprocess.Popen[str]]:
    """A server that has begun to fill the volume."""
    pipe: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", FILLER, name, image], **pipe) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "fills\n"
        yield process
        process.kill()


@pytest.mark.engine
def test_a_server_that_was_killed_while_it_filled_the_volume_is_succeeded_at_once(
    docker_api: docker.APIClient, name: str, image: str, filler: subprocess.Popen[str]
) -> None:
    filler.kill()  # and nobody has waited for it yet
    began = time.monotonic()
    SupervisorVolumes(docker_api)._fill(name, b"program", image)
    assert time.monotonic() - began < SOON
    assert docker_api.containers(all=True, filters={"name": name}) == []


@pytest.mark.engine
def test_a_server_that_fills_the_volume_is_waited_for_and_one_of_another_machine_for_a_bounded_time(
    docker_api: docker.APIClient,
    name: str,
    image: str,
    filler: subprocess.Popen[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (before,) = docker_api.containers(all=True, filters={"name": name})
    filling = threading.Thread(target=SupervisorVolumes(docker_api)._fill, args=(name, b"program", image))
    filling.start()
    filling.join(2)
    assert filling.is_alive()
    assert [found["Id"] for found in docker_api.containers(all=True, filters={"name": name})] == [before["Id"]]
    docker_api.remove_container(before["Id"], force=True)
    filling.join(HOST_TIMEOUT)
    assert not filling.is_alive()
    monkeypatch.setattr(supervisor_volume, "FILL_TIMEOUT", 1.0)
    foreign = docker_api.create_container(image, ["true"], name=name, labels={"taskcell.filler": "other/4026/1/1"})
    SupervisorVolumes(docker_api)._fill(name, b"program", image)
    with pytest.raises(docker.errors.NotFound):
        docker_api.inspect_container(foreign["Id"])


def test_a_mark_tells_a_dead_process_of_this_machine_from_all_others() -> None:
    own = living.mark_of(os.getpid())
    place, _, start = own.rpartition("/")
    assert not living.is_dead(own)
    assert living.is_dead(f"{place}/{int(start) - 1}")  # its number is somebody else's now
    with subprocess.Popen(["sleep", "60"]) as process:
        mark = living.mark_of(process.pid)
        assert not living.is_dead(mark)
        process.kill()
        process.wait()
    assert living.is_dead(mark)
    for unknown in ("", "a/b/1/2", "x", f"elsewhere{own}", f"{place.rpartition('/')[0]}/x/{start}"):
        assert not living.is_dead(unknown)
