"""The offer of a real server over a real engine: an image that comes and goes while a client is connected."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from mcp.client.client import Client

from serving import serving
from taskcell.assembly.offer import LOOK_INTERVAL, MISSES
from taskcell.images.default import REFERENCE

pytestmark = [pytest.mark.anyio, pytest.mark.engine]

#: Seconds for an image that goes: the looks that must miss it, on a busy machine.
PATIENCE = MISSES * LOOK_INTERVAL + 30
MANIFEST = '[skills.{name}]\nsource = "docker:{image}"\ndocker.entrypoint = ["sh", "-c"]\n'


def docker(*arguments: str) -> None:
    subprocess.run(["docker", *arguments], check=True, capture_output=True, timeout=PATIENCE)


@pytest.fixture
def image() -> Iterator[str]:
    """The name of an image of taskcell's that nothing has yet."""
    name = f"taskcell/offertest{os.getpid()}:latest"
    yield name
    subprocess.run(["docker", "rmi", name], capture_output=True, timeout=PATIENCE, check=False)


async def until_listed(client: Client, name: str, *, listed: bool) -> None:
    with anyio.fail_after(PATIENCE):
        while (name in [tool.name for tool in (await client.list_tools()).tools]) != listed:
            await anyio.sleep(0.2)


async def test_a_skill_is_offered_while_its_image_is_there_and_its_call_says_what_is_missing_otherwise(
    tmp_path: Path, image: str
) -> None:
    (tmp_path / "m.toml").write_text(MANIFEST.format(name="made", image=image))
    async with serving(tmp_path, 'manifests = ["m.toml"]\n[pool]\nwarm = 0\n') as (client, _):
        assert "made" not in [tool.name for tool in (await client.list_tools()).tools]
        refused = await client.call_tool("made", {"args": ["true"]})
        assert refused.is_error
        assert image in str(refused.content)
        docker("tag", REFERENCE, image)
        await until_listed(client, "made", listed=True)
        assert not (await client.call_tool("made", {"args": ["true"]})).is_error
        docker("rmi", image)
        await until_listed(client, "made", listed=False)
    log = (tmp_path / "serve.log").read_text()
    assert log.count("Tools are not offered") == 2
    assert log.count("Tools are offered from now on") == 1


async def test_the_next_server_of_a_deployment_offers_at_once_what_the_last_one_found(
    tmp_path: Path, image: str
) -> None:
    docker("tag", REFERENCE, image)
    (tmp_path / "m.toml").write_text(MANIFEST.format(name="made", image=image))
    toml = 'manifests = ["m.toml"]\ndeployment = "offer"\n[pool]\nwarm = 0\n'
    async with serving(tmp_path, toml) as (client, _):
        assert "made" in [tool.name for tool in (await client.list_tools()).tools]
    hangs = '[engine]\nhost = "unix:///nowhere/docker.sock"\n'
    async with serving(tmp_path, toml + hangs) as (client, _):
        assert "made" in [tool.name for tool in (await client.list_tools()).tools]
