"""Files of a state folder: trusted only where they are ours, written whole or not at all, and locked.

Whoever else can write there, or a program that runs as our user, may leave a link, a pipe or a device in a file's
place. Nothing here follows a link below the folder, waits for a pipe, or reads without an end.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from taskcell.regular_file import SAFELY, open_regular

#: Bytes of a deployment's key, as many as SHA-256 makes use of.
KEY_SIZE = 32
#: Seconds for a process that looks whether a file is locked to go on, which takes it microseconds unless others have
#: the processor; and seconds between two attempts.
LOOK_PATIENCE, LOOK_TURN = 2.0, 0.001


def own_folder(folder: Path) -> None:
    """Make a folder for our user alone, with the folders above it where they are missing.

    Raises OSError: it cannot be made, is a link, or belongs to another user.
    """
    _make(folder)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | SAFELY)
    try:
        _check_owner(os.fstat(descriptor))
        os.fchmod(descriptor, 0o700)
    finally:
        os.close(descriptor)


def check_folder(folder: Path) -> None:
    """Raises OSError: there is no such folder, it is a link, or it belongs to another user."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "it is not a folder")
    _check_owner(found)


def read_own(path: Path, limit: int) -> bytes:
    """Read a regular file of our user's. Raises OSError: it is none, or has more than `limit` bytes."""
    descriptor = _open_own(path, os.O_RDONLY)
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"it has more than {limit} bytes")
    return data


def open_own(path: Path) -> BinaryIO:
    """Open a regular file of our user's to read it. Raises OSError: it is none."""
    return os.fdopen(_open_own(path, os.O_RDONLY), "rb")


def create_own(path: Path) -> BinaryIO:
    """Make a file that was not there, for our user alone. Raises OSError."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | SAFELY, 0o600), "w+b")


def replace(path: Path, data: bytes) -> None:
    """Write a file so that readers see the old one or the whole new one. Raises OSError."""
    draft = _draft(path, data)
    try:
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def unlink(path: Path) -> None:
    """Remove a file, and what a writer that was killed left beside it."""
    for found in (path, *path.parent.glob(f".{path.name}.*")):
        with suppress(OSError):
            found.unlink(missing_ok=True)


def lock(path: Path, *, create: bool) -> int:
    """An open, locked file. Raises BlockingIOError: another process has the lock; OSError: it cannot be told."""
    descriptor = _open_own(path, os.O_RDWR | (os.O_CREAT if create else 0))
    try:
        _lock(descriptor)
        if not os.fstat(descriptor).st_nlink:
            raise FileNotFoundError(str(path))  # somebody else has just taken what it stood for
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _lock(descriptor: int) -> None:
    """Lock a file, past processes that only look at its lock. Raises BlockingIOError: another process has it."""
    deadline = time.monotonic() + LOOK_PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
        else:
            return
        # Possible beside one that looks; beside one that has the lock, it raises.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        time.sleep(LOOK_TURN)


def is_locked(path: Path) -> bool:
    """Whether a process has the lock of a file of ours.

    Looking takes the lock from nobody: two servers may look at a third one's, and neither is taken for the third.
    """
    try:
        descriptor = _open_own(path, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    finally:
        os.close(descriptor)
    return False


def read_key(path: Path) -> bytes:
    """The deployment's key; the first server makes it, whole or not at all. Raises OSError.

    What is not a key of ours in its place is removed: with another key, older sandboxes are not taken up.
    """
    for _ in range(2):
        try:
            if len(key := read_own(path, KEY_SIZE)) == KEY_SIZE:
                return key
            path.unlink()
        except FileNotFoundError:
            pass
        except OSError:
            path.unlink()
        draft = _draft(path, secrets.token_bytes(KEY_SIZE))
        with suppress(FileExistsError):
            os.link(draft, path)  # unlike a rename, not over another server's
        draft.unlink()
    return read_own(path, KEY_SIZE)


def why(error: OSError) -> str:
    """The reason of an error, for the log."""
    return error.strerror or str(error)


def _make(folder: Path) -> None:
    # `parents=True` would make those above with the mode of the umask, for others to write in.
    if not folder.exists():
        if folder.parent != folder:
            _make(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def _open_own(path: Path, flags: int) -> int:
    descriptor = open_regular(path, flags)
    try:
        _check_owner(os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check_owner(found: os.stat_result) -> None:
    if found.st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, "it belongs to another user")


def _draft(path: Path, data: bytes) -> Path:
    """A new file beside another one, under a name that nobody can know before. Raises OSError."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | SAFELY, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
    except BaseException:
        draft.unlink(missing_ok=True)  # on a full disk a half of it would only take room
        raise
    return draft
