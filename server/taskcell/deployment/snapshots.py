"""Snapshots: tasks' files under names, each an archive in a folder that only the server's user can read.

They are a principal's, whichever of its tasks they were made of, and outlive the task, the server and the engine.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import structlog

from taskcell.deployment.archives import FAULTS, ArchiveHead, ArchiveStore, begin, read_head
from taskcell.deployment.state_files import open_own
from taskcell.errors import NoRoom
from taskcell.units import format_size

log = structlog.get_logger(__name__)

#: What the name of a snapshot's file ends with.
SNAPSHOT = ".snapshot"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One snapshot. `size` in bytes, of its archive."""

    head: ArchiveHead
    size: int
    path: Path


class Snapshots:
    """A deployment's snapshots. Everything blocks.

    Arguments:
        most: how many a principal may have.
        most_bytes: how much all of a principal's may take.
    """

    def __init__(self, deployment: ArchiveStore, most: int, most_bytes: int) -> None:
        self._deployment = deployment
        self._most = most
        self._most_bytes = most_bytes

    @property
    def is_on(self) -> bool:
        """There is a place for them."""
        return self._deployment.is_shared

    def check_room(self, principal: str, name: str, size: int = 0) -> None:
        """Raises NoRoom: the principal may not have one more of that many bytes, in the place of one of that name."""
        others = [one for one in self.of(principal) if one.head.name != name]
        if len(others) >= self._most:
            raise NoRoom(
                f"You have {len(others)} snapshots, as many as workspace.snapshots allows: use the name of one that is "
                "not needed any more, or ask the person who runs the server to remove one (`taskcell snapshot rm`)."
            )
        if sum(one.size for one in others) + size > self._most_bytes:
            raise NoRoom(
                f"The snapshot does not fit: yours may take {format_size(self._most_bytes)} together "
                "(workspace.snapshots_size). Use the name of one that is not needed any more, or ask the person who "
                "runs the server to remove one (`taskcell snapshot rm`)."
            )

    def draft(self, head: ArchiveHead) -> tuple[Path, BinaryIO]:
        """Begin a snapshot; the files follow. Raises OSError."""
        own = self._path(head.principal, head.name)
        return begin(own.with_name(f".{own.name}.{self._deployment.instance}.{secrets.token_hex(4)}"), head)

    def keep(self, draft: Path, head: ArchiveHead) -> None:
        """Put a whole snapshot in its place, which may be an older one's. Raises NoRoom, OSError."""
        self.check_room(head.principal, head.name, draft.stat().st_size)
        draft.replace(self._path(head.principal, head.name))

    def open(self, principal: str, name: str) -> tuple[ArchiveHead, BinaryIO] | None:
        """A snapshot, opened at the files; None where there is none of that name. Raises OSError."""
        try:
            file = open_own(self._path(principal, name))
        except FileNotFoundError:
            return None
        try:
            head = read_head(file)
            if (head.principal, head.name) == (principal, name):
                return head, file
        except FAULTS:
            log.warning("A snapshot is not used: it is not what a server writes.", path=str(file.name))
        file.close()
        return None

    def of(self, principal: str) -> list[Snapshot]:
        """A principal's snapshots, by name. What killed servers had begun is deleted."""
        folder = self._deployment.folder
        for draft in () if folder is None else (folder / "snapshots").glob(f".*{SNAPSHOT}.*"):
            if self._deployment.is_over(draft.name.split(".")[3], draft):
                draft.unlink(missing_ok=True)
        return [one for one in all_snapshots(folder) if one.head.principal == principal]

    def _path(self, principal: str, name: str) -> Path:
        """Neither a principal nor a name becomes a part of it."""
        assert self._deployment.folder is not None
        text = f"{len(principal)}:{principal}{name}".encode("utf-8", "surrogatepass")
        return self._deployment.folder / "snapshots" / f"{hashlib.sha256(text).hexdigest()[:32]}{SNAPSHOT}"


def all_snapshots(folder: Path | None) -> list[Snapshot]:
    """Every snapshot, by principal and name. Blocking.

    Arguments:
        folder: the deployment's.
    """
    found = [] if folder is None else list(_read(folder / "snapshots"))
    return sorted(found, key=lambda one: (one.head.principal, one.head.name))


def _read(folder: Path) -> Iterator[Snapshot]:
    for path in folder.glob(f"*{SNAPSHOT}"):
        with suppress(*FAULTS), open_own(path) as file:
            yield Snapshot(read_head(file), path.stat().st_size, path)
