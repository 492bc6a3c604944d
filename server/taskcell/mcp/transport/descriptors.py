"""Standard input and output, taken for the protocol before anything else is started."""

from __future__ import annotations

import fcntl
import os
import select
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

import anyio

from taskcell.errors import TaskcellError

#: The other end of a socket may be half closed; a pipe has no such event, and hangs up as a whole.
_PEER_WRITES_NO_MORE: int = getattr(select, "EPOLLRDHUP", 0)


class Wire(NamedTuple):
    """The descriptors of the protocol: private to this process, closed in its children, non-blocking."""

    read: int
    write: int


@contextmanager
def claim_stdio() -> Iterator[Wire]:
    """Take standard input and output for the protocol.

    Until the process ends, descriptor 0 reads as empty and descriptor 1 is standard error: a child or a stray print
    can neither take the client's bytes nor write among ours. On leaving, the private descriptors are closed (the
    client sees the end) and their blocking mode is as it was, for whoever shares the terminal or pipe.

    Raises:
        TaskcellError: one of the two is closed.
    """
    read, write = _private(0, "input"), _private(1, "output")
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.close(null)
    try:
        os.dup2(2, 1)
    except OSError:  # started without standard error
        null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(null, 1)
        os.close(null)
    blocking = [(fd, os.get_blocking(fd)) for fd in (read, write)]
    try:
        for fd in (read, write):
            os.set_blocking(fd, False)
        yield Wire(read, write)
    finally:
        for fd, mode in blocking:
            with suppress(OSError):
                os.set_blocking(fd, mode)
            os.close(fd)


def is_client(fd: int) -> bool:
    """Whether the other end is a program that can leave: not so for a file, a terminal and /dev/null."""
    mode = os.fstat(fd).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


async def peer_closed(fd: int) -> None:
    """Wait until nobody reads what is written to a descriptor.

    Of a regular file this is never so; and where the system has no epoll, the next write brings it to light.
    """
    await _hang_up(fd, 0)


async def peer_left(fd: int) -> None:
    """Wait until nobody writes what is read from a descriptor, though there may be bytes to read yet."""
    await _hang_up(fd, _PEER_WRITES_NO_MORE)


async def _hang_up(fd: int, events: int) -> None:
    if sys.platform != "linux":
        await anyio.sleep_forever()
        return
    with select.epoll() as watched:
        try:
            # Errors and hang-ups are reported without being asked for: nothing wakes the loop while all is well.
            watched.register(fd, events)
        except PermissionError:  # a regular file
            await anyio.sleep_forever()
        await anyio.wait_readable(watched.fileno())


def _private(fd: int, name: str) -> int:
    try:
        duplicate = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    except OSError:
        raise TaskcellError(
            f"Standard {name} is closed, and it is the protocol: let an MCP client start `taskcell serve`."
        ) from None
    if not os.isatty(duplicate):
        return duplicate
    # A terminal's standard streams are one open file: non-blocking here would be non-blocking for stderr and the shell.
    with suppress(OSError):
        own = os.open(os.ttyname(duplicate), os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        os.close(duplicate)
        return own
    return duplicate
