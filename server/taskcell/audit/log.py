"""The audit log: a file of JSON lines that several servers may write, one line at a time."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from taskcell.audit.chain import Broken, Link, read_line
from taskcell.errors import TaskcellError
from taskcell.regular_file import open_regular

#: Bytes after which a file is kept under a number and a new one is begun. Kept files stay until somebody deletes them.
MAX_LOG = 64 << 20
#: Characters of a command that are kept. What comes after them stands in no line.
MAX_VALUE = 4096
#: Seconds for another server to write its line, which takes less than a millisecond; the event loop stands meanwhile.
LOCK_PATIENCE, LOCK_POLL = 0.05, 0.001
#: Bytes at the end of a file in which its last line is looked for: a line has at most 6 bytes for a character.
_TAIL = 64 << 10


class AuditFailed(TaskcellError):
    """A line cannot be written, so that the call that it is about fails. The operator must act."""


class AuditLog:
    """Writes lines to a file. A line is on its way to the disk when `write` returns.

    Arguments:
        path: absolute; its folder exists.
    """

    def __init__(self, path: Path, *, max_size: int = MAX_LOG) -> None:
        self.path = path
        self._max_size = max_size
        self._last: tuple[int, int, Link] | None = None

    def write(self, event: str, **fields: Any) -> None:
        """Add a line. Raises AuditFailed.

        Arguments:
            event: what happened, such as `decision`.
            fields: JSON-ready values; a text is cut after MAX_VALUE characters, and None is left out.
        """
        shown = {name: _cut(value) for name, value in fields.items() if value is not None}
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        try:
            with self._locked() as fd:
                line, after = self._link(fd).add({"time": now, "event": event, **shown})
                _write_whole(fd, line)
                found = os.fstat(fd)
                self._last = found.st_ino, found.st_size, after
                if found.st_size >= self._max_size:
                    self._rotate(after)
        except (OSError, Broken) as error:
            mend, reason = "make that possible", str(error)
            if isinstance(error, OSError):
                reason = error.strerror or reason
            else:
                mend, reason = "keep that file under another name, and a new one begins", f"its last line: {reason}"
            raise AuditFailed(
                f"The audit log {self.path} cannot be written ({reason}), and without it nothing is done; the operator "
                f"must {mend}."
            ) from None

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """The file at the path, locked: a file that was renamed while it was waited for is left alone."""
        deadline = time.monotonic() + LOCK_PATIENCE
        while True:
            try:
                with _opened(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT) as fd:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if self._is_current(fd):
                        yield fd
                        return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise OSError(0, "another program holds its lock") from None
                time.sleep(LOCK_POLL)

    def _is_current(self, fd: int) -> bool:
        with suppress(FileNotFoundError):
            return os.fstat(fd).st_ino == self.path.stat(follow_symlinks=False).st_ino
        return False

    def _link(self, fd: int) -> Link:
        """Where the chain stands: remembered, or as the last line says. Raises Broken."""
        found = os.fstat(fd)
        if self._last is not None and self._last[:2] == (found.st_ino, found.st_size):
            return self._last[2]
        if found.st_size:
            return _last_link(fd, found.st_size)
        kept = kept_files(self.path)
        if not kept:
            return self._last[2] if self._last is not None else Link()
        with _opened(kept[-1], os.O_RDONLY) as file:
            return _last_link(file, os.fstat(file).st_size)

    def _rotate(self, after: Link) -> None:
        """Keep the file under the number of its last line; the next line begins a new one, and continues the chain."""
        os.rename(self.path, self.path.with_name(f"{self.path.name}.{after.number:012d}"))


def kept_files(path: Path) -> list[Path]:
    """The files that were rotated away, the oldest first."""
    found = path.parent.glob(f"{path.name}.*")
    return sorted(file for file in found if file.name.removeprefix(f"{path.name}.").isdigit())


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    """Raises OSError: it is not a regular file, or cannot be opened."""
    fd = open_regular(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)


def _last_link(fd: int, size: int) -> Link:
    """What the last line says. Raises Broken."""
    tail = os.pread(fd, _TAIL, max(0, size - _TAIL))
    if not tail.endswith(b"\n"):
        raise Broken("it is not whole")
    return read_line(tail[:-1].rpartition(b"\n")[2])[1]


def _write_whole(fd: int, line: bytes) -> None:
    """Write a line, or nothing of it. Raises OSError."""
    size = os.fstat(fd).st_size
    try:
        written = os.write(fd, line)
        if written < len(line):
            os.write(fd, line[written:])
        if os.fstat(fd).st_size != size + len(line):
            raise OSError(0, "the disk is full")
    except OSError:
        with suppress(OSError):
            os.ftruncate(fd, size)
        raise


def _cut(value: Any) -> Any:
    return value[:MAX_VALUE] if isinstance(value, str) else value
