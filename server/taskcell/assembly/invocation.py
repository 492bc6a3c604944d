"""What a command, or a program that embeds taskcell, was called with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a process has from outside; read once, in `__main__`."""

    environ: Mapping[str, str]
    cwd: Path


@dataclass(frozen=True, slots=True)
class Invocation:
    """One command's surroundings and common options. `config` None means: look in the usual places."""

    environ: Mapping[str, str]
    cwd: Path
    config: Path | None = None
    debug: bool = False
