"""An archive of a task's files: a line that says whose they are, and the files as a tar archive."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from taskcell.deployment.checked import number, text
from taskcell.deployment.state_files import create_own, own_folder
from taskcell.model import MIB, TaskKey

#: Bytes of an archive's first line: variables have at most half of that.
_MAX_LINE = 2 * MIB
#: An archive has a header of up to 1.5 kB for each file, beside the files, which fill the workspace at most.
_FACTOR, _ROOM = 2, 64 * MIB
#: What reading something else than an archive brings.
FAULTS = (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError)


class ArchiveStore(Protocol):
    """Where a deployment's archives are, and what of it is a server's. `StateFolder` is one."""

    @property
    def folder(self) -> Path | None:
        """The folder; None where there is none."""

    @property
    def instance(self) -> str:
        """The server's name."""

    @property
    def is_shared(self) -> bool:
        """Archives can be written, and the deployment's other servers find them."""

    @property
    def cleans(self) -> bool:
        """It is this server that deletes what is too old or too much."""

    def has(self, task: TaskKey) -> bool:
        """Whether the task is surely this server's, so that its archive may be replaced."""

    def is_over(self, instance: str, draft: Path) -> bool:
        """Whether nobody goes on writing what a server has begun to write."""

    def may_take(self, task: TaskKey, instance: str) -> bool:
        """Whether what a server has written about a task is this one's now, as far as the task is."""


@dataclass(frozen=True, slots=True)
class ArchiveHead:
    """What stands in an archive's first line.

    Arguments:
        saved: when it was made (seconds of the wall clock).
        folder: where the task's next command starts, relative to the workspace; empty where nobody knows.
        env: the variables that it starts with; None where nobody knows.
        name: of a snapshot.
    """

    principal: str
    task: str
    saved: float
    folder: str = ""
    env: Mapping[str, str] | None = None
    name: str = ""

    @property
    def key(self) -> TaskKey:
        return TaskKey(self.principal, self.task)


def begin(path: Path, head: ArchiveHead) -> tuple[Path, BinaryIO]:
    """Make an archive, and its folder; what the task's files are follows its first line. Raises OSError."""
    own_folder(path.parent)
    file = create_own(path)
    file.write(json.dumps(asdict(head)).encode("utf-8", "surrogatepass") + b"\n")
    return path, file


def read_head(file: BinaryIO) -> ArchiveHead:
    """Read the first line; the files begin after it. Raises what is in FAULTS."""
    table = json.loads(file.readline(_MAX_LINE))
    env = table["env"]
    known = env if env is None else {text(name): _long(value) for name, value in env.items()}
    return ArchiveHead(
        text(table["principal"]),
        text(table["task"]),
        number(table["saved"]),
        text(table["folder"]),
        known,
        text(table.get("name", "")),
    )


def most_bytes(size: int) -> int:
    """Bytes that an archive of a workspace of `size` bytes has at most."""
    return size * _FACTOR + _ROOM


def has_files(file: BinaryIO) -> bool:
    """Whether an archive has more than the folder itself; the file stands where it stood before."""
    start = file.tell()
    try:
        with tarfile.open(fileobj=file, mode="r|") as archive:
            return archive.next() is not None and archive.next() is not None
    except tarfile.TarError:
        return False
    finally:
        file.seek(start)


def age_of(path: Path) -> float:
    """When a file was written last (seconds of the wall clock); 0 for one that has gone."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _long(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("it is not a text")
    return value
