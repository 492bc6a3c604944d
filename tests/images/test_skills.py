"""The images of skills: their definitions, when they are built, and how a missing one is told."""

from __future__ import annotations

import dataclasses
import stat
import tarfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import anyio
import anyio.to_thread
import docker
import pytest

from observe import HOST_TIMEOUT, alive, eventually, marker
from taskcell.cli.app import run as taskcell
from taskcell.engine.docker.engine import DockerEngine
from taskcell.errors import EngineError, ImageMissing, TaskcellError
from taskcell.images import default as image
from taskcell.images import skills as skill_images
from taskcell.images.engine import Announce
from taskcell.images.skills import CATALOG, ImageState
from taskcell.images.wheel import fetch_program

FFMPEG = CATALOG["ffmpeg"]
BASE = {image.DEFINITION_LABEL: image.definition_hash()}


class RecordingEngine:
    """An engine that has the given images, and keeps what it is asked to build."""

    def __init__(self, images: Mapping[str, Mapping[str, str]], failure: str = "") -> None:
        self.images = dict(images)
        self.failure = failure
        self.built: list[tuple[str, str, dict[str, int]]] = []
        self.imported: list[str] = []

    async def image_labels(self, reference: str) -> Mapping[str, str] | None:
        return self.images.get(reference)

    async def image_architecture(self, reference: str) -> str:
        return "amd64"

    async def import_image(self, tar: Path, reference: str, changes: Sequence[str]) -> None:
        assert tarfile.is_tarfile(tar)
        self.imported.append(reference)

    async def build_image(self, dockerfile: str, reference: str, report: Announce, context: Path | None = None) -> None:
        if self.failure:
            report("Step 1/3\nE: Unable to locate package")
            raise EngineError(self.failure)
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in context.iterdir()} if context else {}
        self.built.append((reference, dockerfile, modes))


@pytest.mark.anyio
async def test_an_image_is_built_on_the_default_one_with_its_files_and_its_label() -> None:
    engine, said = RecordingEngine({image.REFERENCE: BASE}), list[str]()
    await skill_images.build(engine, [CATALOG["imagemagick"]], report=said.append)
    [(reference, dockerfile, modes)] = engine.built
    assert reference == "taskcell/imagemagick:latest"
    lines = dockerfile.splitlines()
    assert (lines[0], lines[-2]) == ("FROM taskcell/base:latest", "USER 1000:1000")
    assert lines[-1] == f"LABEL taskcell.definition={skill_images.definition_hash(CATALOG['imagemagick'])}"
    assert "--no-install-recommends imagemagick" in dockerfile
    assert "rm -rf /var/lib/apt/lists/*" in dockerfile
    assert modes == {"taskcell-write": 0o755, "policy.xml": 0o644}
    assert said[-1] == "Built taskcell/imagemagick:latest."


@pytest.mark.anyio
async def test_only_what_is_missing_or_outdated_is_built_unless_forced() -> None:
    labels = {image.DEFINITION_LABEL: skill_images.definition_hash(FFMPEG)}
    engine, said = RecordingEngine({image.REFERENCE: BASE, FFMPEG.reference: labels}), list[str]()
    await skill_images.build(engine, [FFMPEG], report=said.append)
    assert (engine.built, said) == ([], ["taskcell/ffmpeg:latest is up to date."])
    await skill_images.build(engine, [FFMPEG], report=said.append, force=True)
    engine.images[FFMPEG.reference] = {image.DEFINITION_LABEL: "old"}
    await skill_images.build(engine, [FFMPEG], report=said.append)
    assert [reference for reference, _, _ in engine.built] == [FFMPEG.reference] * 2


@pytest.mark.anyio
@pytest.mark.parametrize("changed", ["ffmpeg", "python"])  # not duckdb, whose program would be downloaded
async def test_a_change_of_one_images_definition_builds_that_one_alone(changed: str) -> None:
    before = {**CATALOG, changed: dataclasses.replace(CATALOG[changed], packages=("before",))}
    built_from = {skill.reference: skill_images.definition_hash(skill) for skill in before.values()}
    labels = {reference: {image.DEFINITION_LABEL: hashed} for reference, hashed in built_from.items()}
    engine = RecordingEngine({image.REFERENCE: BASE} | labels)
    await skill_images.build(engine, list(CATALOG.values()), report=lambda line: None)
    assert [reference for reference, _, _ in engine.built] == [CATALOG[changed].reference]


@pytest.mark.anyio
@pytest.mark.parametrize("images", [{}, {image.REFERENCE: {}}, {image.REFERENCE: {image.DEFINITION_LABEL: "old"}}])
async def test_a_missing_or_outdated_default_image_is_built_first(
    images: dict[str, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # without mmdebstrap, the engine builds it
    engine = RecordingEngine(images)
    await skill_images.build(engine, [FFMPEG], report=lambda line: None)
    assert [reference for reference, _, _ in engine.built] == [image.REFERENCE, FFMPEG.reference]


@pytest.mark.anyio
async def test_a_failed_build_is_told_with_its_last_lines() -> None:
    engine = RecordingEngine({image.REFERENCE: BASE}, failure="The image could not be built: code 100.")
    with pytest.raises(EngineError) as caught:
        await skill_images.build(engine, [FFMPEG], report=lambda line: None)
    assert str(caught.value).startswith("The image could not be built: code 100. Its last words:\n")
    assert str(caught.value).endswith("E: Unable to locate package")


CHANGES = (
    {"packages": ("ffmpeg", "sox")},
    {"files": ()},
    {"files": (dataclasses.replace(FFMPEG.files[0], mode=0o644),)},
    {"wheel": CATALOG["duckdb"].wheel},
)


@pytest.mark.parametrize("change", CHANGES)
def test_the_hash_changes_with_what_is_in_the_image(change: dict[str, object]) -> None:
    changed = dataclasses.replace(FFMPEG, **change)  # type: ignore[arg-type]
    assert skill_images.definition_hash(changed) != skill_images.definition_hash(FFMPEG)


def test_the_hash_does_not_change_with_words_for_people() -> None:
    changed = dataclasses.replace(FFMPEG, purpose="films", size=1)
    assert skill_images.definition_hash(changed) == skill_images.definition_hash(FFMPEG)


@pytest.mark.parametrize(
    ("reference", "command"),
    [
        ("taskcell/base:latest", "taskcell image build"),
        ("taskcell/base", "taskcell image build"),
        ("taskcell/ffmpeg:latest", "taskcell image build ffmpeg"),
        ("docker.io/taskcell/ffmpeg", "taskcell image build ffmpeg"),
        ("taskcell/ffmpeg:5", None),
        ("taskcell/nothing:latest", None),
        ("debian:bookworm", None),
        ("other/ffmpeg:latest", None),
        ("ffmpeg", None),
    ],
)
def test_the_command_that_builds_an_image_is_known_by_its_reference(reference: str, command: str | None) -> None:
    assert skill_images.build_command(reference) == command


def test_a_name_without_an_image_is_refused_with_the_names_that_there_are() -> None:
    with pytest.raises(TaskcellError, match=r"^There is no image 'fmpeg'; choose among duckdb, ffmpeg, "):
        skill_images.select(["fmpeg"])
    assert skill_images.select(["pandoc", "ffmpeg", "pandoc"]) == [CATALOG["pandoc"], FFMPEG]
    assert skill_images.select([], everything=True) == list(CATALOG.values())


@pytest.mark.parametrize(
    "words", [["--list", "ffmpeg"], ["--list", "--all"], ["--all", "ffmpeg"], ["--tag", "a/b:c", "ffmpeg"]]
)
def test_options_that_contradict_are_bad_usage(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert taskcell(["image", "build", *words], environ={}, cwd=tmp_path) == 2
    assert "leave " in capsys.readouterr().err


@pytest.mark.anyio
async def test_a_program_for_an_unknown_architecture_is_refused_in_words(tmp_path: Path) -> None:
    wheel = CATALOG["duckdb"].wheel
    assert wheel is not None
    with pytest.raises(EngineError, match="There is no duckdb-cli for the engine's architecture s390x"):
        await fetch_program(wheel, "s390x", tmp_path / "duckdb")


@pytest.mark.anyio
async def test_a_program_whose_hash_is_wrong_is_not_taken(tmp_path: Path) -> None:
    wheel = CATALOG["duckdb"].wheel
    assert wheel is not None
    forged = dataclasses.replace(wheel, hashes=("0" * 64,))
    with pytest.raises(EngineError, match="pip could not download duckdb-cli"):
        await fetch_program(forged, "amd64", tmp_path / "duckdb")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.engine
@pytest.mark.anyio
async def test_a_missing_image_names_the_command_that_builds_it() -> None:
    engine = await DockerEngine.open("", {})
    try:
        with pytest.raises(ImageMissing, match="taskcell builds none of that name; the person who runs the server"):
            await engine.images.ensure("taskcell/nothing:latest")
        with pytest.raises(ImageMissing, match="taskcell builds none of that name"):
            await engine.images.ensure("taskcell/ffmpeg:no-such-tag")
    finally:
        await engine.aclose()


@pytest.mark.engine
@pytest.mark.anyio
async def test_the_built_images_are_todays_and_of_the_size_that_is_told(
    skill_images_built: None, docker_api: docker.APIClient
) -> None:
    engine = await DockerEngine.open("", {})
    base = docker_api.inspect_image(image.REFERENCE)["Size"]
    try:
        for skill in CATALOG.values():
            assert await skill_images.state(engine.images, skill.reference) is ImageState.CURRENT
            found = docker_api.inspect_image(skill.reference)
            assert found["Config"]["User"] == "1000:1000"
            assert found["Size"] - base == pytest.approx(skill.size * 1e6, rel=0.15)
    finally:
        await engine.aclose()


@pytest.mark.engine
@pytest.mark.anyio
async def test_a_cancelled_build_ends_in_the_engine_too(docker_api: docker.APIClient) -> None:
    engine, mark = await DockerEngine.open("", {}), marker()
    dockerfile = f"FROM {image.REFERENCE}\nRUN while echo tick {mark}; do sleep 0.1; done\n"
    ticked = threading.Event()

    def report(line: str) -> None:
        if line.startswith("tick"):
            ticked.set()

    try:
        async with anyio.create_task_group() as building:
            building.start_soon(engine.images.build_image, dockerfile, "taskcell-test/cancelled:latest", report)
            assert await anyio.to_thread.run_sync(ticked.wait, HOST_TIMEOUT)
            assert alive(mark)
            building.cancel_scope.cancel()
    finally:
        await engine.aclose()
    assert await anyio.to_thread.run_sync(lambda: eventually(lambda: not alive(mark)))
    assert docker_api.images("taskcell-test/cancelled") == []


@pytest.mark.engine
@pytest.mark.anyio
async def test_an_image_that_is_built_again_replaces_the_old_one(docker_api: docker.APIClient) -> None:
    engine, reference = await DockerEngine.open("", {}), f"taskcell-test/{marker().replace('.', '-')}:latest"
    ids = []
    try:
        for number in range(2):
            dockerfile = f"FROM {image.REFERENCE}\nLABEL number={number}\n"
            await engine.images.build_image(dockerfile, reference, lambda line: None)
            ids.append(docker_api.inspect_image(reference)["Id"])
        assert ids[0] != ids[1]
        with pytest.raises(docker.errors.ImageNotFound):
            docker_api.inspect_image(ids[0])
    finally:
        docker_api.remove_image(reference)
        await engine.aclose()
