"""Read the operator's own sudo password from its file, and refuse what cannot be one."""

from __future__ import annotations

import os
import stat
from pathlib import Path

#: Bytes; what the supervisor takes, and less than PAM and sudo do.
MAX_PASSWORD = 255


def check_password(text: str) -> str:
    """Return the password as it is. Raises ValueError, without the password, if sudo could never read it."""
    size = len(text.encode("utf-8", "surrogateescape"))
    if not text:
        raise ValueError("is empty; put the password there, or leave it out to have one generated")
    if size > MAX_PASSWORD:
        raise ValueError(f"holds {size} bytes; a password may have at most {MAX_PASSWORD}")
    if "\0" in text or "\n" in text or "\r" in text:
        raise ValueError("must be one line without a NUL character")
    return text


def read_password(path: Path) -> str:
    """Read the password in a file, without one newline at its end. Raises ValueError, without the file's content."""
    try:
        # Not blocking: the path could be a FIFO.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ValueError(f"names {path}, which cannot be read ({error.strerror}); correct the path") from None
    try:
        mode = os.fstat(fd).st_mode
        if not stat.S_ISREG(mode):
            raise ValueError(f"names {path}, which is not a regular file; name one that holds the password")
        if mode & stat.S_IRWXO:
            raise ValueError(f"names {path}, which everyone on this machine may use; run `chmod 600` on it")
        data = os.read(fd, MAX_PASSWORD + 3)
    finally:
        os.close(fd)
    try:
        return check_password(data.decode("utf-8").removesuffix("\n").removesuffix("\r"))
    except UnicodeDecodeError:
        raise ValueError(f"names {path}, which does not hold UTF-8 text; save it as UTF-8") from None
    except ValueError as error:
        raise ValueError(f"names {path}, whose content {error}") from None
