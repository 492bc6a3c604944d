"""Finds the supervisor's programs, which are part of the wheel."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

from taskcell.errors import EngineError

FOLDER = Path(__file__).with_name("bin")
#: Names of machines as Docker, Linux and macOS write them.
_ARCHITECTURES = {
    "amd64": "x86_64",
    "x86_64": "x86_64",
    "arm64": "aarch64",
    "aarch64": "aarch64",
}


def path(architecture: str = "") -> Path:
    """Return the path of an architecture's program; empty means this machine's. Raises EngineError."""
    name = _ARCHITECTURES.get(architecture or platform.machine())
    if name is None:
        raise EngineError(f"There is no supervisor for the architecture '{architecture or platform.machine()}'.")
    found = FOLDER / f"supervisor-{name}"
    if not found.is_file():
        raise EngineError(
            f"The supervisor {found} is missing; the person who runs the server must install taskcell again on the "
            "host (`pip install .` builds it)."
        )
    return found


@cache
def read(architecture: str) -> bytes:
    """Return the program's bytes. Raises EngineError."""
    return path(architecture).read_bytes()
