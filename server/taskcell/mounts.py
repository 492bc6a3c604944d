"""What a profile mounts. Sizes are in bytes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mount:
    """A mount that a profile asks for. `source` is an absolute host path, or None for the task's workspace."""

    source: str | None
    target: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Tmpfs:
    """A bounded, nosuid, nodev in-memory file system."""

    target: str
    size: int
    mode: int = 0o1777
    executable: bool = True
