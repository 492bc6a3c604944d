"""Files anywhere in a sandbox by two scripts, and the exceptions of Python for what goes wrong with them.

The server's own route for files serves the workspace alone; frameworks put files into `/tmp` and elsewhere, too.
"""

from __future__ import annotations

import posixpath

from taskcell.client.process import Done
from taskcell.client.task import Task

#: What the scripts end with for what has an exception of its own.
_IS_FOLDER, _IS_MISSING = 91, 92
_READ = f'[ ! -d "$1" ] || exit {_IS_FOLDER}; [ -e "$1" ] || exit {_IS_MISSING}; exec cat -- "$1"'
_WRITE = f'[ ! -d "$1" ] || exit {_IS_FOLDER}; mkdir -p -- "$2" && cat > "$1"'
#: For the sentences of the programs in the scripts, and so that no image's own programs take their place.
SCRIPT_ENV = {"LC_ALL": "C", "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}


def reading(path: str) -> list[str]:
    """Return the words of a command that writes a file to its output. The path is absolute."""
    return ["/bin/sh", "-c", _READ, "sh", path]


def writing(path: str) -> list[str]:
    """Return the words of a command that writes its input to a file, and makes the folders above it."""
    return ["/bin/sh", "-c", _WRITE, "sh", path, posixpath.dirname(path)]


async def read_anywhere(task: Task, path: str) -> bytes:
    """Return a file's bytes. Raises as `check_script`, or a CellError. The path is absolute."""
    done = await task.run(reading(path), env=SCRIPT_ENV)
    check_script(path, done)
    return done.stdout


async def write_anywhere(task: Task, path: str, data: bytes) -> None:
    """Write a file, with the folders above it. Raises as `check_script`, or a CellError. The path is absolute."""
    check_script(path, await task.run(writing(path), stdin=data, env=SCRIPT_ENV))


def check_script(file: str, done: Done) -> None:
    """Raise the exception for how one of the scripts ended, by its exit code or C's sentences.

    Raises IsADirectoryError, FileNotFoundError, PermissionError, or OSError for what has none of its own, such as a
    full workspace.

    Arguments:
        file: what the exception calls it.
    """
    if done.ok:
        return
    said = done.stderr.decode("utf-8", "replace").strip()
    if done.exit_code == _IS_FOLDER:
        raise IsADirectoryError(f"{file} is a directory.")
    if done.exit_code == _IS_MISSING:
        raise FileNotFoundError(f"There is no file {file}.")
    if "Permission denied" in said or "Read-only file system" in said:
        raise PermissionError(f"{file}: {said}")
    raise OSError(f"{file}: {said or done.status}")
