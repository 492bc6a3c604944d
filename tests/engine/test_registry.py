"""Images from a real registry on loopback that asks who pulls: Debian's `docker-registry`, and an engine of its own."""

from __future__ import annotations

import base64
import io
import json
import logging
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import anyio
import docker
import pytest

from gateways import GatewayFactory
from observe import eventually
from second_engine import SecondEngine
from serving import serving
from taskcell.engine.docker.calls import Calls
from taskcell.engine.docker.images import DockerImages
from taskcell.errors import ImageMissing
from taskcell.mcp.progress import Progress
from taskcell.mcp.server import build_server
from taskcell.model import ToolCall

pytestmark = [pytest.mark.anyio, pytest.mark.engine, pytest.mark.image_registry]

PLACE = "127.0.0.1:5000"
REPOSITORY = f"{PLACE}/team/dash"
#: The same registry through a relay that turns slow: a pull takes minutes.
SLOW_PLACE = "127.0.0.1:5001"
SLOW = f"{SLOW_PLACE}/team/random:1"
#: Bytes of its one layer, which cannot be compressed.
RANDOM_SIZE = 1 << 20
#: Seconds for what takes a moment on an idle machine.
PATIENCE = 120.0
USER, PASSWORD = "ada", "s3cret-word"


@dataclass(frozen=True)
class Registry:
    engine: SecondEngine
    digest: str
    #: Has the line `cut` for each connection that the engine closed in the middle of a slow answer.
    slow_log: Path

    def images(self) -> DockerImages:
        return DockerImages(Calls(self.engine.host, {}))

    def api(self) -> docker.APIClient:
        return docker.APIClient(self.engine.host, version="auto")


RELAY = Path(__file__).parents[1] / "support" / "slow_relay.py"
SignIn = Callable[[dict[str, object]], None]


@pytest.fixture
def sign_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SignIn:
    """Writes the docker configuration of whoever runs the server."""
    folder = tmp_path / "docker"
    folder.mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))

    def write(written: dict[str, object]) -> None:
        (folder / "config.json").write_text(json.dumps(written))

    return write


def auths(password: str) -> dict[str, object]:
    signed = {"auth": base64.b64encode(f"{USER}:{password}".encode()).decode()}
    return {"auths": {PLACE: signed, SLOW_PLACE: signed}}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry with one image, in the engine's network namespace."""
    folder = tmp_path_factory.mktemp("registry")
    hashed = subprocess.run(["htpasswd", "-Bbn", USER, PASSWORD], check=True, capture_output=True, text=True).stdout
    (folder / "htpasswd").write_text(hashed.strip() + "\n")
    (folder / "config.yml").write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {folder}/data}}}}\nhttp: {{addr: '{PLACE}'}}\n"
        f"auth: {{htpasswd: {{realm: test, path: {folder}/htpasswd}}}}\n"
    )
    engine = SecondEngine()
    serving: list[subprocess.Popen[bytes]] = []
    slow_log = folder / "slow.log"
    slow_log.touch()
    try:
        engine.start()
        inside = ["nsenter", f"--net=/proc/{engine.pid}/ns/net"]
        subprocess.run([*inside, "ip", "link", "set", "lo", "up"], check=True)
        with (folder / "log").open("wb") as log:
            argv = [*inside, "docker-registry", "serve", str(folder / "config.yml")]
            serving.append(subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT))
            ports = [place.rpartition(":")[2] for place in (SLOW_PLACE, PLACE)]
            relay = [*inside, sys.executable, str(RELAY), *ports, str(slow_log)]
            serving.append(subprocess.Popen(relay, stdout=log, stderr=subprocess.STDOUT))
        listens = [*inside, "sh", "-c", f"ss -ltn | grep -q '{PLACE}' && ss -ltn | grep -q '{SLOW_PLACE}'"]
        assert eventually(lambda: subprocess.run(listens, check=False).returncode == 0), (folder / "log").read_text()
        api = docker.APIClient(engine.host, version="auto")
        api.tag("taskcell/dash", REPOSITORY, "1")
        said = list(
            api.push(REPOSITORY, "1", stream=True, decode=True, auth_config={"username": USER, "password": PASSWORD})
        )
        digest = next(step["aux"]["Digest"] for step in said if "aux" in step)
        _push_random(api)
        api.close()
        yield Registry(engine, digest, slow_log)
    finally:
        for process in serving:
            process.kill()
            process.wait()
        engine.remove()


def _push_random(api: docker.APIClient) -> None:
    """Push an image whose layer the engine has no more afterwards, so that a pull downloads it."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        entry = tarfile.TarInfo("random")
        entry.size = RANDOM_SIZE
        archive.addfile(entry, io.BytesIO(os.urandom(RANDOM_SIZE)))
    name = f"{PLACE}/team/random"
    api.import_image_from_data(file.getvalue(), repository=name, tag="1")
    for step in api.push(name, "1", stream=True, decode=True, auth_config={"username": USER, "password": PASSWORD}):
        assert "error" not in step, step
    api.remove_image(f"{name}:1", force=True)


@pytest.fixture(autouse=True)
def without_image(registry: Registry) -> None:
    api = registry.api()
    for image in api.images():
        for tag in [tag for tag in (image["RepoTags"] or []) if tag.startswith((PLACE, SLOW_PLACE))]:
            api.remove_image(tag, force=True)
    api.close()


async def test_an_image_is_pulled_with_the_docker_configuration_s_credentials_by_tag_and_by_digest(
    registry: Registry, sign_in: SignIn
) -> None:
    sign_in(auths(PASSWORD))
    images = registry.images()
    assert (await images.ensure(f"{REPOSITORY}:1"))["Id"].startswith("sha256:")
    assert await images.why_not_pulled(f"{REPOSITORY}:1") == ""
    assert (await images.ensure(f"{REPOSITORY}@{registry.digest}"))["RepoDigests"] == [
        f"{REPOSITORY}@{registry.digest}"
    ]


async def test_a_credential_helper_is_asked(
    registry: Registry, sign_in: SignIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper = tmp_path / "bin" / "docker-credential-own"
    helper.parent.mkdir()
    answer = json.dumps({"ServerURL": PLACE, "Username": USER, "Secret": PASSWORD})
    helper.write_text(f"#!/bin/sh\ncat >/dev/null\necho '{answer}'\n")
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", str(helper.parent), prepend=":")
    sign_in({"credHelpers": {PLACE: "own"}})
    assert await registry.images().ensure(f"{REPOSITORY}:1")


@pytest.mark.parametrize("config", [auths("wrong-s3cret"), {}, {"credHelpers": {PLACE: "not-there"}}])
async def test_wrong_credentials_are_a_sentence_without_the_secret(
    registry: Registry,
    sign_in: SignIn,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    config: dict[str, object],
) -> None:
    sign_in(config)
    images = registry.images()
    with caplog.at_level(logging.DEBUG), pytest.raises(ImageMissing) as caught:
        await images.ensure(f"{REPOSITORY}:1")
    why = await images.why_not_pulled(f"{REPOSITORY}:1")
    assert "could not be pulled" in str(caught.value)
    assert why
    encoded = base64.b64encode(f"{USER}:wrong-s3cret".encode()).decode()
    for secret in ("wrong-s3cret", encoded):
        assert secret not in f"{caught.value!r}{why}{caplog.text}{capfd.readouterr()}"


async def test_signing_in_while_the_server_runs_is_enough(registry: Registry, sign_in: SignIn) -> None:
    images = registry.images()
    sign_in({})
    with pytest.raises(ImageMissing):
        await images.ensure(f"{REPOSITORY}:1")
    sign_in(auths(PASSWORD))
    assert await images.ensure(f"{REPOSITORY}:1")


async def test_calls_that_need_one_image_at_once_pull_it_once(registry: Registry, sign_in: SignIn) -> None:
    sign_in(auths(PASSWORD))
    images = registry.images()
    found: list[str] = []

    async def need() -> None:
        found.append(str((await images.ensure(f"{REPOSITORY}:1"))["Id"]))

    async with anyio.create_task_group() as calls:
        for _ in range(4):
            calls.start_soon(need)
    assert len(found) == 4
    assert len(set(found)) == 1


async def test_a_pull_that_is_cancelled_ends_at_the_engine_and_leaves_no_image(
    registry: Registry, sign_in: SignIn
) -> None:
    sign_in(auths(PASSWORD))
    images, before = registry.images(), registry.slow_log.read_text().count("cut")
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as calls:
            calls.start_soon(images.ensure, SLOW)
            while "downloading layer" not in await images.pulling(SLOW):
                await anyio.sleep(0.05)
            calls.cancel_scope.cancel()
        assert await images.pulling(SLOW) == ""
        while registry.slow_log.read_text().count("cut") == before:
            await anyio.sleep(0.05)
    assert await images.image_id(SLOW) == ""
    assert await images.ensure(f"{REPOSITORY}:1"), "another pull is not held up"


async def test_the_progress_of_a_call_says_how_far_the_pull_is_that_it_waits_for(
    registry: Registry, sign_in: SignIn, gateway: GatewayFactory
) -> None:
    sign_in(auths(PASSWORD))
    heard: list[str] = []
    news = anyio.Event()

    async def hear(number: float, message: str) -> None:
        heard.append(message)
        if "downloading layer" in message:
            news.set()

    toml = f'manifests = []\n[terminal]\nimage = "{SLOW}"\nshell = ["sh", "-c"]\n'
    call = ToolCall("local", "terminal", {"command": "true"})
    with anyio.fail_after(PATIENCE):
        async with gateway(toml, host=registry.engine.host) as gw, anyio.create_task_group() as calls:
            tools, images = build_server(gw).tools, gw.engine.images
            assert isinstance(images, DockerImages)
            progress = Progress(hear, heartbeat=0.2, before=lambda: tools._pulling(call))
            calls.start_soon(progress.report_while, lambda: images.ensure(SLOW))
            await news.wait()
            calls.cancel_scope.cancel()
    assert heard[-1].startswith(f"Pulling the image {SLOW}: downloading layer "), heard
    assert "MiB" in heard[-1]


@pytest.mark.parametrize(
    ("era", "image", "tool", "arguments"),
    [
        ("legacy", SLOW, "terminal", {"command": "true"}),
        ("2026-07-28", "taskcell/dash", "sandbox", {"action": "open", "image": SLOW}),
    ],
)
async def test_a_client_hears_how_far_the_pull_is_that_its_call_waits_for(
    registry: Registry, sign_in: SignIn, tmp_path: Path, *, era: str, image: str, tool: str, arguments: dict[str, str]
) -> None:
    sign_in(auths(PASSWORD))
    heard: list[str] = []
    news = anyio.Event()

    async def hear(number: float, total: float | None, message: str | None) -> None:
        heard.append(message or "")
        if "downloading layer" in heard[-1]:
            news.set()

    toml = (
        f'deployment = "registry-{era}"\nmanifests = []\n[engine]\nhost = "{registry.engine.host}"\n'
        f'[terminal]\nimage = "{image}"\nshell = ["sh", "-c"]\n[policy]\ntask_images = ["{SLOW_PLACE}/team/*"]\n'
    )
    env = {"DOCKER_CONFIG": os.environ["DOCKER_CONFIG"]}
    with anyio.fail_after(PATIENCE):
        async with serving(tmp_path, toml, era, env) as (client, _), anyio.create_task_group() as calls:
            calls.start_soon(lambda: client.call_tool(tool, arguments, progress_callback=hear))
            await news.wait()
            calls.cancel_scope.cancel()
    assert heard[-1].startswith(f"Pulling the image {SLOW}: downloading layer "), heard
