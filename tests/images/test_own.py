"""`taskcell image build --file`: a person's own Dockerfile."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import docker
import pytest

from taskcell.cli.app import run
from taskcell.engine.docker.build_context import MAX_CONTEXT, write_context
from taskcell.engine.docker.calls import Calls
from taskcell.engine.docker.images import DockerImages
from taskcell.errors import EngineError
from taskcell.images.own import build_own


def names_in(folder: Path, most: int = MAX_CONTEXT) -> set[str]:
    made = io.BytesIO()
    write_context(made, "FROM scratch\n", folder, most)
    made.seek(0)
    with tarfile.open(fileobj=made) as archive:
        assert {member.uid for member in archive} == {0}
        return set(archive.getnames())


def test_the_context_is_the_folder_without_what_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    for name in ("Dockerfile", "src/a.py", "src/a.log", "secret.env"):
        (tmp_path / name).write_text(name)
    assert names_in(tmp_path) == {"Dockerfile", "src", "src/a.py", "src/a.log", "secret.env"}
    (tmp_path / ".dockerignore").write_text("# comment\n*.env\n**/*.log\n")
    assert names_in(tmp_path) == {"Dockerfile", ".dockerignore", "src", "src/a.py"}


def test_a_context_that_is_too_large_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(100_000))
    with pytest.raises(EngineError, match=r"name what is not needed in its \.dockerignore"):
        names_in(tmp_path, 50_000)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("text", "reference", "says"),
    [
        (None, "a:1", "cannot be read"),
        (b"\xff\xfe", "a:1", "is not UTF-8"),
        (b" \n", "a:1", "is empty, or too large"),
        (b"FROM a\n", "A B", "is not an image reference"),
    ],
)
async def test_what_cannot_be_built_is_one_sentence_before_the_engine_is_asked(
    tmp_path: Path, text: bytes | None, reference: str, says: str
) -> None:
    file = tmp_path / "Dockerfile"
    if text is not None:
        file.write_bytes(text)
    images = DockerImages(Calls(f"unix://{tmp_path}/none.sock", {}))
    with pytest.raises(EngineError, match=says):
        await build_own(images, file, reference, report=lambda line: None)


@pytest.mark.parametrize("words", [["--file", "x"], ["--file", "x", "--tag", "a", "--all"], ["--file", "x", "--list"]])
def test_file_needs_a_name_and_stands_alone(words: list[str], tmp_path: Path, capfd: Any) -> None:
    assert run(["image", "build", *words], environ={}, cwd=tmp_path) == 2
    assert "--file" in capfd.readouterr().err


@pytest.mark.engine
def test_an_own_dockerfile_is_built_with_its_folder(
    docker_api: docker.APIClient, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    name = f"own-test/thing:{os.getpid()}"
    (tmp_path / "Dockerfile").write_text("FROM taskcell/base:latest\nCOPY word /opt/word\nLABEL own=yes\n")
    (tmp_path / "word").write_text("hello")
    try:
        words = ["image", "build", "--file", "Dockerfile", "--tag", name]
        assert run(words, environ={**os.environ}, cwd=tmp_path) == 0
        assert docker_api.inspect_image(name)["Config"]["Labels"]["own"] == "yes"
        assert f"Built {name}." in capfd.readouterr().out
    finally:
        docker_api.remove_image(name, force=True)
