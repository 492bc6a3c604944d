"""An archive of a task's files: a line that says whose they are, and the files as a tar archive.

Between them a snapshot has a tar archive for each folder of the image that is the task's own.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Protocol

from taskcell.deployment.checked import number, text
from taskcell.deployment.state_files import create_own, own_folder
from taskcell.model import MIB, TaskKey

#: Bytes of an archive's first line: variables have at most half of that.
_MAX_LINE = 2 * MIB
#: An archive has a header of up to 1.5 kB for each file, beside the files, which fill the workspace at most.
_FACTOR, _ROOM = 2, 64 * MIB
#: Bytes as which a folder's archive counts until it is whole: more digits than its size will have.
_UNKNOWN = 10**15
#: Bytes that are read at once.
_PIECE = 1 << 20
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
        own: folders of the image, each with the bytes of its archive, in the order in which these follow the line.
    """

    principal: str
    task: str
    saved: float
    folder: str = ""
    env: Mapping[str, str] | None = None
    name: str = ""
    own: Mapping[str, int] = field(default_factory=dict)

    @property
    def key(self) -> TaskKey:
        return TaskKey(self.principal, self.task)


def begin(path: Path, head: ArchiveHead) -> tuple[Path, BinaryIO]:
    """Make an archive, and its folder; what the task's files are follows its first line. Raises OSError."""
    own_folder(path.parent)
    file = create_own(path)
    file.write(_line(head))
    return path, file


def with_folders(head: ArchiveHead, folders: Sequence[str]) -> ArchiveHead:
    """Return the head of an archive that is to have these folders, too; `note_sizes` says later how large each is."""
    return replace(head, own=dict.fromkeys(folders, _UNKNOWN))


def note_sizes(file: BinaryIO, head: ArchiveHead) -> None:
    """Write the first line again, now that the sizes of the folders' archives are known. Raises OSError."""
    end = file.seek(0, 2)
    file.seek(0)
    length = len(file.readline(_MAX_LINE))
    file.seek(0)
    file.write(_line(head)[:-1].ljust(length - 1) + b"\n")
    file.seek(end)


def pieces(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Read so many bytes from where the file stands. Raises OSError."""
    while size > 0 and (piece := file.read(min(_PIECE, size))):
        size -= len(piece)
        yield piece


def read_head(file: BinaryIO) -> ArchiveHead:
    """Read the first line; the folders' archives begin after it, then the files. Raises what is in FAULTS."""
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
        {text(folder): int(number(size)) for folder, size in table.get("own", {}).items()},
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


def _line(head: ArchiveHead) -> bytes:
    return json.dumps(asdict(head)).encode("utf-8", "surrogatepass") + b"\n"


def _long(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("it is not a text")
    return value
