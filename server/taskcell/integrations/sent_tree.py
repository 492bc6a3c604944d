"""A file or folder of this machine, put anywhere in a sandbox: the server's route for files has the workspace alone."""

from __future__ import annotations

import posixpath
from collections.abc import AsyncIterator
from pathlib import Path

import anyio.to_thread

from taskcell.client.files import joined_pieces
from taskcell.client.host_archive import packed
from taskcell.client.task import Task
from taskcell.integrations.exact_files import SCRIPT_ENV, check_script

_UNPACK = 'mkdir -p -- "$1" && exec tar -x -o -f - -C "$1"'


async def send_tree(task: Task, source: Path, target: str) -> None:
    """Copy a file or folder, which becomes `target`; what is neither file, folder nor link is left out.

    Raises FileNotFoundError where it is not there, PermissionError, OSError, CellError.

    Arguments:
        target: an absolute path. A folder is merged into one that is there.
    """
    if not await anyio.to_thread.run_sync(source.exists):
        raise FileNotFoundError(f"There is no file or folder {source} here.")
    if target.startswith("/workspace/"):
        await task.upload(source, target)
        return
    folder, name = posixpath.split(target)
    pieces: AsyncIterator[bytes] = joined_pieces(packed(source, name or ".", lambda _: None))
    done = await task.run(["/bin/sh", "-c", _UNPACK, "sh", folder], stdin=pieces, env=SCRIPT_ENV)
    check_script(target, done)
