"""What a command, or a program that embeds taskcell, was called with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Invocation:
    """Everything that comes from outside; `__main__` reads it once.

    Arguments:
        environ: of the process; no other environment is read.
        cwd: where the configuration is looked for, and what relative paths begin at.
        config: the configuration file; None means the usual places.
    """

    environ: Mapping[str, str]
    cwd: Path
    config: Path | None = None
