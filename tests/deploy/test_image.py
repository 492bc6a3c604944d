"""The image of the server: on a mounted engine as an unprivileged user, and an upgrade that loses no task."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import anyio
import docker
import httpx2
import pytest
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client

from asking import text_of
from http_serving import PATIENCE, tokens_for
from observe import containers, eventually

pytestmark = [pytest.mark.deploy, pytest.mark.engine]

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
SOCKET = "/var/run/docker.sock"
#: Seconds for a build of the image, which downloads 40 packages, on a busy machine.
BUILD_PATIENCE = 900.0
CONFIG = """
deployment = "{name}"
manifests = []
[http]
tokens_file = "tokens.json"
[pool]
warm = 0
orphan_ttl = "60s"
"""


@pytest.fixture(scope="module")
def image(docker_api: docker.APIClient) -> Iterator[str]:
    tag = f"taskcell-test/server:{secrets.token_hex(4)}"
    subprocess.run([DEPLOY / "image/build.sh", tag], check=True, timeout=BUILD_PATIENCE, stdin=subprocess.DEVNULL)
    yield tag
    docker_api.remove_image(tag, force=True)


@dataclass
class Deployed:
    """A deployment whose servers are containers."""

    api: docker.APIClient
    image: str
    name: str
    folder: Path
    port: int

    def configure(self) -> str:
        """Write what /etc/taskcell holds, for the image's own user; return a token."""
        [token] = tokens_for(self.folder, "ada")
        (self.folder / "taskcell.toml").write_text(CONFIG.format(name=self.name), encoding="utf-8")
        found = self._run("run", "--rm", "--entrypoint", "id", self.image, "-u").stdout
        for path in (self.folder, *self.folder.iterdir()):
            os.chown(path, int(found), -1)
        return token

    def start(self, version: str) -> None:
        """Start a server with the options of compose.yaml, but on the host's network: an engine may lack others."""
        options = ("--network", "host", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--read-only")
        volumes = (f"{SOCKET}:{SOCKET}", f"{self.folder}:/etc/taskcell:ro", f"{self.name}:/var/lib/taskcell")
        self._run(
            *("run", "--detach", "--name", f"{self.name}-{version}", *options, "--tmpfs", "/tmp"),
            *(word for volume in volumes for word in ("--volume", volume)),
            *("--group-add", str(os.stat(SOCKET).st_gid), self.image, "serve", "--http", f"127.0.0.1:{self.port}"),
        )
        assert eventually(self._is_ready), self._run("logs", f"{self.name}-{version}").stderr

    def stop(self, version: str) -> int:
        """End a server as `docker stop` does; return its exit code."""
        self._run("stop", "--time", "15", f"{self.name}-{version}")
        return int(self.api.inspect_container(f"{self.name}-{version}")["State"]["ExitCode"])

    def _is_ready(self) -> bool:
        try:
            return httpx2.get(f"http://127.0.0.1:{self.port}/readyz", timeout=5).status_code == 200
        except httpx2.TransportError:
            return False

    async def terminal(self, token: str, command: str, **arguments: object) -> str:
        headers = {"authorization": f"Bearer {token}"}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=PATIENCE) as http,
            Client(streamable_http_client(f"http://127.0.0.1:{self.port}/mcp", http_client=http)) as client,
        ):
            return text_of(await client.call_tool("terminal", {"command": command, "task_id": "t", **arguments}))

    def remove(self) -> None:
        for identity in containers(self.api, taskcell__deployment=self.name):
            self.api.remove_container(identity, force=True, v=True)
        for found in self.api.containers(all=True, filters={"name": f"{self.name}-"}):
            self.api.remove_container(found["Id"], force=True, v=True)
        self.api.remove_volume(self.name, force=True)

    def _run(self, *words: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(["docker", *words], capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert done.returncode == 0, done.stderr
        return done


@pytest.fixture
def deployed(docker_api: docker.APIClient, image: str) -> Iterator[Deployed]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # Not pytest's folder: others than its owner may not enter that.
    folder = Path("/tmp") / f"taskcell-{secrets.token_hex(4)}"
    folder.mkdir(mode=0o755)
    found = Deployed(docker_api, image, f"deploy-{secrets.token_hex(4)}", folder, port)
    yield found
    found.remove()
    shutil.rmtree(folder)


@pytest.mark.anyio
async def test_an_upgrade_keeps_files_folder_and_running_commands(deployed: Deployed) -> None:
    token = deployed.configure()
    await anyio.to_thread.run_sync(deployed.start, "1")
    count = "n=0; while n=$((n + 1)); do echo $n >count; sleep 0.2; done"
    assert "still running" in await deployed.terminal(token, count, background=True)
    assert "[exit 0" in await deployed.terminal(token, "mkdir work; cd work; echo kept >file")
    assert await anyio.to_thread.run_sync(deployed.stop, "1") == 0

    await anyio.to_thread.run_sync(deployed.start, "2")
    assert (await deployed.terminal(token, "cat file; pwd")).startswith("kept\n/workspace/work\n")
    grows = "a=$(cat ../count); until [ $(cat ../count) -gt $a ]; do sleep 0.1; done; echo it goes on"
    assert (await deployed.terminal(token, grows, timeout=20)).startswith("it goes on\n")
    assert await anyio.to_thread.run_sync(deployed.stop, "2") == 0


def test_the_server_in_the_image_is_not_root_and_no_program_makes_it_root(image: str) -> None:
    script = "id -u; find / -xdev -type f -perm /6000"
    words = ["docker", "run", "--rm", "--network", "none", "--entrypoint", "sh", image, "-c", script]
    found = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=False).stdout.split()
    assert len(found) == 1
    assert found[0] not in ("0", "1000")
