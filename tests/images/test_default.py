"""The default image: its definition, the two ways to build it, and what a built one holds."""

from __future__ import annotations

import dataclasses
import shlex
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import anyio
import docker
import pytest

from taskcell.errors import EngineError
from taskcell.images import default as image
from taskcell.images.engine import Announce

#: Seconds to notice that a build has begun, or that a cancelled one cleaned up, on a busy machine.
BUSY_MACHINE = 20.0


class RecordingEngine:
    """An engine that keeps what it is asked to make."""

    def __init__(self, labels: Mapping[str, str] | None = None) -> None:
        self.labels = labels
        self.imported: list[tuple[list[str], str, Sequence[str]]] = []
        self.built: list[tuple[str, str]] = []

    async def image_labels(self, reference: str) -> Mapping[str, str] | None:
        return self.labels

    async def import_image(self, tar: Path, reference: str, changes: Sequence[str]) -> None:
        with tarfile.open(tar) as archive:
            self.imported.append((archive.getnames(), reference, changes))

    async def build_image(self, dockerfile: str, reference: str, report: Announce) -> None:
        self.built.append((dockerfile, reference))


def program(folder: Path, script: str) -> str:
    """A stand-in for mmdebstrap; in `script`, $target is the tar and $TMPDIR the folder to unpack into."""
    path = folder / "mmdebstrap"
    path.write_text(
        f'#!/bin/bash\nfor target; do :; done\necho "$TMPDIR" > {shlex.quote(str(folder))}/tmpdir\n{script}\n'
    )
    path.chmod(0o755)
    return str(path)


def folder_used(folder: Path) -> Path:
    return Path((folder / "tmpdir").read_text().strip()).parent


@pytest.mark.anyio
async def test_the_root_file_system_that_mmdebstrap_made_is_imported_with_the_definitions_label(tmp_path: Path) -> None:
    engine, said = RecordingEngine(), list[str]()
    made = program(tmp_path, 'cd "$TMPDIR" && echo root > etc && tar -cf "$target" etc')
    await image.build(engine, reference="a/b:c", report=said.append, mmdebstrap=made)
    [(names, reference, changes)] = engine.imported
    assert (names, reference) == (["etc"], "a/b:c")
    assert f"LABEL taskcell.definition={image.definition_hash()}" in changes
    assert said[-1] == "Built a/b:c."
    assert not folder_used(tmp_path).exists()


@pytest.mark.anyio
async def test_a_failed_mmdebstrap_is_a_sentence_with_its_last_lines_and_leaves_no_files(tmp_path: Path) -> None:
    engine = RecordingEngine()
    made = program(tmp_path, 'echo first; seq 20; echo "E: no route to the mirror" >&2; exit 25')
    with pytest.raises(EngineError) as caught:
        await image.build(engine, report=lambda line: None, mmdebstrap=made)
    message = str(caught.value)
    assert "exit code 25" in message
    assert message.endswith("E: no route to the mirror")
    assert "first" not in message
    assert engine.imported == []
    assert not folder_used(tmp_path).exists()


@pytest.mark.anyio
async def test_a_cancelled_build_lets_mmdebstrap_clean_up_and_removes_its_folder(tmp_path: Path) -> None:
    made = program(
        tmp_path,
        f"trap 'echo cleaned > {tmp_path}/cleaned; exit 1' TERM\necho > {tmp_path}/ready\nwhile :; do sleep 0.05; done",
    )
    with anyio.fail_after(BUSY_MACHINE):
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: image.build(RecordingEngine(), report=lambda line: None, mmdebstrap=made))
            while not await anyio.Path(tmp_path / "ready").exists():
                await anyio.sleep(0.01)
            group.cancel_scope.cancel()
    assert (tmp_path / "cleaned").read_text() == "cleaned\n"
    assert not folder_used(tmp_path).exists()


@pytest.mark.anyio
async def test_without_mmdebstrap_the_engine_builds_the_same_definition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    engine = RecordingEngine()
    await image.build(engine, reference="a/b:c", report=lambda line: None)
    [(dockerfile, reference)] = engine.built
    assert reference == "a/b:c"
    assert dockerfile.startswith("FROM debian:bookworm-slim\n")
    assert all(package in dockerfile for package in image.DEFAULT.packages)
    assert image.DEFAULT.setup() in dockerfile
    assert all(change in dockerfile.splitlines() for change in image.DEFAULT.changes())


def test_both_ways_get_the_same_packages_and_the_same_setup() -> None:
    argv = image.mmdebstrap_command(Path("/t.tar"))
    [include] = [word for word in argv if word.startswith("--include=")]
    assert tuple(include.removeprefix("--include=").split(",")) == image.DEFAULT.packages
    [hook] = [word for word in argv if word.startswith("--customize-hook=")]
    assert shlex.split(hook.removeprefix("--customize-hook="))[-1] == image.DEFAULT.setup()
    assert argv[-2:] == ["bookworm", "/t.tar"]


@pytest.mark.parametrize("change", [{"packages": ("bash",)}, {"user": "other"}, {"uid": 1001}, {"environment": ()}])
def test_the_hash_changes_with_the_definition(change: dict[str, object]) -> None:
    changed = dataclasses.replace(image.DEFAULT, **change)  # type: ignore[arg-type]
    assert image.definition_hash(changed) != image.definition_hash()
    assert image.definition_hash(dataclasses.replace(changed, **image_fields(change))) == image.definition_hash()


def image_fields(names: Mapping[str, object]) -> dict[str, object]:
    return {name: getattr(image.DEFAULT, name) for name in names}


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("labels", "current"),
    [(None, False), ({}, False), ({"taskcell.definition": "old"}, False), ({"taskcell.definition": "today's"}, True)],
)
async def test_an_image_is_current_when_its_label_carries_todays_hash(
    labels: dict[str, str] | None, current: bool
) -> None:
    if labels and current:
        labels = {"taskcell.definition": image.definition_hash()}
    assert await image.is_current(RecordingEngine(labels)) is current


@pytest.mark.anyio
async def test_a_current_image_is_not_built_again_unless_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # without mmdebstrap, the engine builds it
    engine, said = RecordingEngine({image.DEFINITION_LABEL: image.definition_hash()}), list[str]()
    await image.build(engine, reference="a/b:c", report=said.append)
    assert (engine.built, said) == ([], ["a/b:c is up to date."])
    await image.build(engine, reference="a/b:c", report=said.append, force=True)
    engine.labels = {image.DEFINITION_LABEL: "old"}
    await image.build(engine, reference="a/b:c", report=said.append)
    assert [reference for _, reference in engine.built] == ["a/b:c"] * 2


@pytest.mark.engine
def test_the_built_image_is_todays_and_of_the_size_that_is_told(docker_api: docker.APIClient) -> None:
    found = docker_api.inspect_image(image.REFERENCE)
    assert found["Config"]["Labels"][image.DEFINITION_LABEL] == image.definition_hash()
    assert found["Config"]["User"] == "1000:1000"
    assert found["Config"]["WorkingDir"] == "/workspace"
    assert found["Size"] == pytest.approx(image.MEGABYTES * 1e6, rel=0.15)


@pytest.mark.engine
def test_the_built_image_has_a_locked_agent_and_the_tools_that_it_promises(docker_api: docker.APIClient) -> None:
    facts = """
        pwd; stat -c %U:%a /workspace; getent passwd agent | cut -d: -f6,7; grep ^agent: /etc/shadow | cut -d: -f2
        stat -c %s /etc/machine-id; ls /var/lib/apt/lists | grep -c _
        for tool in bash curl file git jq less make patch ps python3 rg sqlite3 tree unzip xz zip; do
            command -v $tool > /dev/null || echo "no $tool"
        done
    """
    assert output(docker_api, facts, user="0").split() == [
        "/workspace",
        "agent:755",
        "/workspace:/bin/bash",
        "!",
        "0",
        "0",
    ]


@pytest.mark.engine
def test_the_agent_of_the_built_image_may_not_use_sudo(docker_api: docker.APIClient) -> None:
    assert output(docker_api, "id -un; sudo -n id -un 2>/dev/null || echo refused", user="1000:1000").split() == [
        "agent",
        "refused",
    ]


def output(api: docker.APIClient, script: str, user: str) -> str:
    """What a shell prints in a throw-away container of the image, without a network."""
    config = api.create_host_config(network_mode="none")
    container = api.create_container(image.REFERENCE, ["bash", "-c", script], user=user, host_config=config)["Id"]
    try:
        api.start(container)
        api.wait(container, timeout=60)
        return bytes(api.logs(container)).decode()
    finally:
        api.remove_container(container, force=True)
