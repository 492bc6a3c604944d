"""The files of tasks whose sandboxes have gone: an archive for each, in a folder that only the server's user can read.

A server names its archives after itself, so that two servers that run and have a task of one name and principal do not
take each other's files. What a dead server left is any other's; on a cluster, what any left of a task that is this
server's now.
"""

from __future__ import annotations

import errno
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import structlog

from taskcell.careful_clock import careful_time
from taskcell.deployment.archives import FAULTS, ArchiveHead, ArchiveStore, age_of, begin, read_head
from taskcell.deployment.state_files import open_own, why
from taskcell.model import TaskKey

log = structlog.get_logger(__name__)

#: What the name of an archive ends with.
ENDING = ".kept"


class KeptFiles:
    """The archives of a deployment. Everything blocks.

    Arguments:
        keep: seconds that an archive is kept; 0: none is.
        most: bytes of all of them.
    """

    def __init__(self, deployment: ArchiveStore, keep: float, most: int) -> None:
        self._deployment = deployment
        self._keep = keep
        self._most = most

    @property
    def is_on(self) -> bool:
        """Files are kept, and there is a place for them."""
        return self._keep > 0 and self.has_place

    @property
    def has_place(self) -> bool:
        """Archives can be written and found."""
        return self._deployment.is_shared

    # --- one task's ----------------------------------------------------------------------------------------------

    def draft(self, about: ArchiveHead) -> tuple[Path, BinaryIO]:
        """Begin an archive; what the task's files are follows its first line. Raises OSError."""
        return begin(self._folder() / f".{self._name(about.key)}.{secrets.token_hex(4)}", about)

    def keep(self, draft: Path, task: TaskKey) -> None:
        """Put a whole archive in the place of the task's last one, also of a dead server's. Raises OSError.

        Each start of a server would leave one more copy otherwise, until they crowd out what is kept of other tasks.
        """
        if not self._deployment.has(task):
            raise PermissionError(errno.EPERM, "another server may have the task by now")
        own = self._folder() / self._name(task)
        draft.replace(own)
        for path in self._of(task):
            if path != own:
                path.unlink(missing_ok=True)

    def take(self, task: TaskKey) -> tuple[ArchiveHead, BinaryIO] | None:
        """Open the task's newest archive at the files, and make it this server's; None where there is none."""
        own = self._folder() / self._name(task)
        # Its own is the last one: what lies beside it, a server wrote late that had lost the task.
        for path in sorted(self._of(task), key=lambda path: (path == own, age_of(path)), reverse=True):
            try:
                path.rename(own)  # of two servers that start at once, one has it
                file = open_own(own)
                about = read_head(file)
                if about.key == task:
                    return about, file
                raise ValueError
            except FileNotFoundError:
                continue
            except FAULTS as error:
                reason = why(error) if isinstance(error, OSError) else "it is not what a server writes"
                log.warning("A task's kept files are not used.", path=str(path), reason=reason)
        return None

    def has(self, task: TaskKey) -> bool:
        """Whether something is kept of a task that this server would take."""
        return self._deployment.is_shared and bool(self._of(task))

    def forget(self, task: TaskKey) -> None:
        """Delete what was kept of a task: it was closed on purpose."""
        if self._deployment.is_shared:
            for path in self._of(task):
                path.unlink(missing_ok=True)

    def _of(self, task: TaskKey) -> list[Path]:
        """A task's archives that are this server's."""
        found = self._folder().glob(f"{task.digest}.*{ENDING}")
        return [path for path in found if self._deployment.may_take(task, path.name.split(".")[1])]

    # --- all of them ---------------------------------------------------------------------------------------------

    def prune(self) -> None:
        """Delete archives that are too old, then the oldest of too many; and what killed servers had begun.

        Nothing where another server does so.
        """
        if not self._deployment.cleans:
            return
        found = sorted(self._all(), key=age_of, reverse=True)
        room, now = self._most, careful_time()
        for path in found:
            with suppress(OSError):
                status = path.stat()
                room -= status.st_size
                if room < 0 or now - status.st_mtime > self._keep:
                    log.info("A task's kept files were deleted.", path=str(path), bytes=status.st_size)
                    path.unlink()
        for draft in self._folder().glob(f".*{ENDING}.*"):
            if self._deployment.is_over(draft.name.split(".")[2], draft):
                draft.unlink(missing_ok=True)

    def tasks(self) -> list[TaskKey]:
        """The tasks that files are kept of."""
        found = set()
        for path in self._all() if self._deployment.is_shared else ():
            with suppress(*FAULTS), open_own(path) as file:
                found.add(read_head(file).key)
        return sorted(found, key=lambda key: (key.principal, key.task))

    def _all(self) -> Iterator[Path]:
        yield from self._folder().glob(f"*{ENDING}")

    def _folder(self) -> Path:
        assert self._deployment.folder is not None
        return self._deployment.folder / "kept"

    def _name(self, task: TaskKey) -> str:
        return f"{task.digest}.{self._deployment.instance}{ENDING}"


def has_kept(folder: Path, task: TaskKey) -> bool:
    """Whether any server, dead or alive, has kept files of a task. Blocking.

    Arguments:
        folder: the deployment's.
    """
    return any((folder / "kept").glob(f"{task.digest}.*{ENDING}"))


def forget_kept(folder: Path | None, is_chosen: Callable[[TaskKey], bool]) -> set[TaskKey]:
    """Delete what any server, dead or alive, has kept of the chosen tasks; returns the tasks. Blocking.

    Arguments:
        folder: of the deployment's archives.
    """
    forgotten = set()
    for path in () if folder is None else sorted((folder / "kept").glob(f"*{ENDING}")):
        with suppress(*FAULTS):
            with open_own(path) as file:
                key = read_head(file).key
            if is_chosen(key):
                path.unlink(missing_ok=True)
                forgotten.add(key)
    return forgotten
