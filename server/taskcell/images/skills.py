"""The images of the shipped skills: the default image with the packages of one skill on top.

Each is built from Debian's packages by the engine, and carries the hash of its definition, in which the default image's
own is contained: a change of either builds it anew.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import Any

import anyio

from taskcell.config.image_reference import NAME_PREFIX
from taskcell.errors import EngineError, TaskcellError
from taskcell.images import default as image
from taskcell.images.default import DEFAULT, DEFINITION_LABEL
from taskcell.images.engine import Announce, ImageEngine
from taskcell.images.wheel import Wheel, fetch_program

_DEFAULT_NAME = image.REFERENCE.removeprefix(NAME_PREFIX).removesuffix(":latest")
_FILES = Path(__file__).with_name("files")
#: Lines of a failed build that go into the error; apt's reason stands in its last few.
_LAST_LINES = 8


@dataclass(frozen=True, slots=True)
class File:
    """A file of `files/` in the image, at the absolute path `target`."""

    source: str
    target: str
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class SkillImage:
    """What one image holds beside the default image's content.

    Arguments:
        purpose: a few words for the list of images.
        size: megabytes that it adds to the default image, measured on x86_64.
        packages: Debian packages; recommended ones stay out.
        wheel: a program that is not in Debian.
        modules: Python modules that it adds, by the names that code imports and pip installs.
    """

    name: str
    purpose: str
    size: int
    packages: tuple[str, ...] = ()
    files: tuple[File, ...] = ()
    wheel: Wheel | None = None
    modules: tuple[str, ...] = ()

    @property
    def reference(self) -> str:
        return f"{NAME_PREFIX}{self.name}:latest"


class ImageState(Enum):
    """`OUTDATED`: built from another definition than today's."""

    CURRENT = "current"
    OUTDATED = "outdated"
    MISSING = "missing"


#: Runs the program that its arguments name, and puts what that wrote in its place.
WRITE_OUTPUT = "taskcell-write"
_WRITE = File("write_output.py", f"/usr/local/bin/{WRITE_OUTPUT}", 0o755)
_DUCKDB = Wheel(
    project="duckdb-cli",
    version="1.5.6",
    hashes=(
        "9797555bd39095d730eb0d0b3bf29e95e148c96a4cdce1e363f01c7bf7003a44",
        "9b03301a14310a4ef7f86386e87b36954fe099ed762c8a81f94f7bd0ba073542",
    ),
    member="duckdb_cli/duckdb",
    target="/usr/local/bin/duckdb",
)

CATALOG: Mapping[str, SkillImage] = {
    skill.name: skill
    for skill in (
        SkillImage("duckdb", "SQL over CSV, JSON and Parquet files with DuckDB", 62, wheel=_DUCKDB),
        SkillImage("ffmpeg", "audio and video with FFmpeg", 453, ("ffmpeg",), (_WRITE,)),
        SkillImage(
            "imagemagick",
            "pictures with ImageMagick",
            92,
            ("imagemagick", "fonts-dejavu-core"),
            (_WRITE, File("imagemagick-policy.xml", "/etc/ImageMagick-6/policy.xml")),
        ),
        SkillImage("pandoc", "documents with pandoc", 174, ("pandoc",), (_WRITE,)),
        SkillImage("poppler", "PDF files with poppler", 19, ("poppler-utils", "fonts-dejavu-core"), (_WRITE,)),
        SkillImage(
            "python",
            "Python with NumPy, pandas, Pillow, openpyxl and Beautiful Soup",
            181,
            (
                "python3-numpy",
                "python3-pandas",
                "python3-pil",
                "python3-openpyxl",
                "python3-bs4",
                "python3-lxml",
                "python3-yaml",
                "python3-tz",
            ),
            modules=(
                *("numpy", "pandas", "PIL", "Pillow", "pillow", "openpyxl", "bs4", "beautifulsoup4", "lxml", "yaml"),
                *("PyYAML", "pyyaml", "pytz"),
            ),
        ),
    )
}


def definition_hash(skill: SkillImage) -> str:
    """Sixteen hex digits that change whenever an image built from `skill` would."""
    contents = [(_FILES / file.source).read_text(encoding="utf-8") for file in skill.files]
    parts: dict[str, Any] = {"base": image.definition_hash(), "dockerfile": _instructions(skill), "files": contents}
    parts |= {"modes": [file.mode for file in skill.files], "wheel": asdict(skill.wheel) if skill.wheel else None}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def dockerfile(skill: SkillImage) -> str:
    """The definition as a Dockerfile; its context holds each file under its target's last name."""
    return "\n".join([*_instructions(skill), f"LABEL {DEFINITION_LABEL}={definition_hash(skill)}"]) + "\n"


def _instructions(skill: SkillImage) -> list[str]:
    lines = [f"FROM {image.REFERENCE}", "USER 0:0"]
    if skill.packages:
        lines.append(
            "RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "
            f"{' '.join(skill.packages)} && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/*.log /var/log/apt"
        )
    targets = [file.target for file in skill.files] + ([skill.wheel.target] if skill.wheel else [])
    lines += [f"COPY {PurePosixPath(target).name} {target}" for target in targets]
    return [*lines, f"USER {DEFAULT.uid}:{DEFAULT.uid}"]


def programs_in(reference: str) -> str:
    """Return what programs an image has that is built here, in few words; empty for any other image."""
    if reference == image.REFERENCE:
        return image.PROGRAMS
    purposes = (f"{image.PROGRAMS}; {skill.purpose}" for skill in CATALOG.values() if skill.reference == reference)
    return next(purposes, "")


def build_command(reference: str) -> str | None:
    """The command that makes the image of that name; None when no command does."""
    name = _name(reference)
    if name == _DEFAULT_NAME:
        return "taskcell image build"
    return f"taskcell image build {name}" if name in CATALOG else None


def is_current(reference: str, labels: Mapping[str, str]) -> bool:
    """Whether an image with these labels was built from today's definition. False for one that is not built here."""
    name = _name(reference)
    if name == _DEFAULT_NAME:
        wanted = image.definition_hash()
    elif name in CATALOG:
        wanted = definition_hash(CATALOG[name])
    else:
        return False
    return labels.get(DEFINITION_LABEL) == wanted


async def state(engine: ImageEngine, reference: str) -> ImageState:
    """Whether the engine has an image that is built here, from today's definition. Raises EngineError."""
    labels = await engine.image_labels(reference)
    if labels is None:
        return ImageState.MISSING
    return ImageState.CURRENT if is_current(reference, labels) else ImageState.OUTDATED


def _name(reference: str) -> str:
    """The name in `taskcell/NAME`, with the tag `latest` or none; empty for any other reference."""
    found = re.fullmatch(rf"(?:docker\.io/)?{NAME_PREFIX}([a-z0-9]+)(?::latest)?", reference)
    return found[1] if found else ""


async def build(engine: ImageEngine, skills: Sequence[SkillImage], *, report: Announce, force: bool = False) -> None:
    """Build what is missing or outdated, the default image first where that is.

    Arguments:
        report: takes one line of progress at a time.
        force: build also what is current, for newer versions of Debian's packages.

    Raises:
        EngineError: packages could not be fetched, the engine refused an image, or one was not built in time.
    """
    if not await image.is_current(engine):
        report(f"{image.REFERENCE}, which the others are built on, is missing or outdated.")
        await image.build(engine, report=report)
    for skill in skills:
        if not force and await state(engine, skill.reference) is ImageState.CURRENT:
            report(f"{skill.reference} is up to date.")
            continue
        report(f"Building {skill.reference}: {skill.purpose} (adds {skill.size} MB).")
        try:
            with anyio.fail_after(image.BUILD_TIMEOUT):
                await _build(engine, skill)
        except TimeoutError:
            raise EngineError(
                f"The image {skill.reference} was not built within {image.BUILD_TIMEOUT / 60:.0f} minutes; check that "
                f"Debian's packages can be reached, then run `taskcell image build {skill.name}` again."
            ) from None
        report(f"Built {skill.reference}.")


async def _build(engine: ImageEngine, skill: SkillImage) -> None:
    last: list[str] = []

    def keep(line: str) -> None:
        last.extend(line.splitlines())
        del last[:-_LAST_LINES]

    with tempfile.TemporaryDirectory(prefix="taskcell-image-", dir=image.TEMPORARY_FOLDER) as name:
        context = Path(name)
        _copy_files(skill, context)
        if skill.wheel is not None:
            architecture = await engine.image_architecture(image.REFERENCE)
            await fetch_program(skill.wheel, architecture, context / PurePosixPath(skill.wheel.target).name)
        try:
            await engine.build_image(dockerfile(skill), skill.reference, keep, context)
        except EngineError as error:
            said = "\n".join(["", *last]) if last else ""
            raise EngineError(f"{error} Its last words:{said}" if said else str(error)) from error


def _copy_files(skill: SkillImage, context: Path) -> None:
    for file in skill.files:
        copy = context / PurePosixPath(file.target).name
        shutil.copyfile(_FILES / file.source, copy)
        copy.chmod(file.mode)


def select(names: Sequence[str], *, everything: bool = False) -> list[SkillImage]:
    """The images of these names, or all of them. Raises TaskcellError for a name that none has."""
    unknown = [name for name in names if name not in CATALOG]
    if unknown:
        raise TaskcellError(f"There is no image '{unknown[0]}'; choose among {', '.join(CATALOG)}.")
    return list(CATALOG.values()) if everything else [CATALOG[name] for name in dict.fromkeys(names)]
