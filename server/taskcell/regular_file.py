"""Opens a file in a place where others may have left a link, a pipe or a device."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

#: No link is followed, no pipe is waited for, no child gets the descriptor.
SAFELY = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_regular(path: Path, flags: int) -> int:
    """Return a descriptor of a regular file, made for our user alone if `flags` has O_CREAT.

    Raises OSError, whose `strerror` says why: it is something else, or cannot be opened.
    """
    try:
        descriptor = os.open(path, flags | SAFELY, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a link") from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file")
    return descriptor
