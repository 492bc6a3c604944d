"""What a profile mounts. Sizes are in bytes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mount:
    """A mount that a profile asks for.

    Arguments:
        source: an absolute host path; None for the task's workspace, or for a named volume.
        volume: the name of a volume that the tasks of one principal share; empty for anything else.
    """

    source: str | None
    target: str
    read_only: bool = False
    volume: str = ""

    @property
    def is_workspace(self) -> bool:
        return self.source is None and not self.volume


@dataclass(frozen=True, slots=True)
class Tmpfs:
    """A bounded, nosuid, nodev in-memory file system."""

    target: str
    size: int
    mode: int = 0o1777
    executable: bool = True
