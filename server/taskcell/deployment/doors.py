"""The local doors of a deployment: one socket for each server that lives, which only their user can open."""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

from taskcell.deployment.state_files import check_folder, is_locked
from taskcell.deployment.state_folder import DOOR
from taskcell.socket_name import short_path

#: Connections that the kernel keeps until they are accepted.
DOOR_BACKLOG = 64


def listen_at(path: Path) -> socket.socket:
    """Open a listening socket for this user alone, in a folder that only this user can enter. Raises OSError."""
    check_folder(path.parent)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with short_path(path) as name:
            with suppress(FileNotFoundError):
                os.unlink(name)
            listening.bind(name)
            os.chmod(name, 0o600)
        listening.listen(DOOR_BACKLOG)
        listening.setblocking(False)
    except BaseException:
        listening.close()
        raise
    return listening


def open_doors(folder: Path) -> list[Path]:
    """The sockets of the deployment's servers that live, the oldest first. Blocking.

    Arguments:
        folder: the deployment's.
    """
    try:
        check_folder(folder)
        found = sorted(folder.glob(f"*{DOOR}"), key=lambda path: path.lstat().st_mtime)
    except OSError:
        return []
    return [path for path in found if _is_socket(path) and is_locked(path.with_suffix(".lock"))]


def _is_socket(path: Path) -> bool:
    with suppress(OSError):
        return stat.S_ISSOCK(path.lstat().st_mode)
    return False
