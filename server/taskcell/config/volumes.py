"""Read volumes, which are written as for `docker run`: `source:/target`, with `:ro` after it for read-only."""

from __future__ import annotations

import re

from taskcell.model import Mount

WORKDIR_VARIABLE = "SKILL_WORKDIR"
#: Stands for `${SKILL_WORKDIR}` in an expanded volume; no text from a file or an environment holds a NUL.
WORKDIR_MARK = "\0"

#: How a shell line of `docker run` names the folder that it is started in.
_CURRENT_FOLDER = frozenset({".", "$PWD", "$(pwd)", "`pwd`"})


def check_shell_forms(volume: str) -> None:
    """Raise ValueError for a volume that only a shell understands, with what to write instead."""
    source, colon, rest = volume.partition(":")
    if colon and source.rstrip("/") in _CURRENT_FOLDER:
        raise ValueError(
            f"{volume!r} would be the folder that docker is started in; for the task's files write "
            f"'${{{WORKDIR_VARIABLE}}}:{rest}'"
        )
    if colon and source.startswith("~/"):
        raise ValueError(f"{volume!r} begins with '~', which only a shell expands; write '${{HOME}}{volume[1:]}'")


def mount_of(volume: str) -> Mount:
    """Read an expanded volume. Raises ValueError if it is neither the workspace nor an absolute path of the host."""
    source, target, read_only = _split(volume)
    if source == WORKDIR_MARK:
        return Mount(None, target, read_only)
    if not source.startswith("/") or WORKDIR_MARK in source + target:
        raise NotAVolume(volume)
    return Mount(source, target, read_only)


class NotAVolume(ValueError):
    """A text is neither the workspace nor a path of the host with its place in the container."""

    def __init__(self, volume: str) -> None:
        named = re.match(r"[a-zA-Z0-9][\w.-]+:", volume)
        what = "names a volume of docker and is not understood" if named else "is not understood"
        super().__init__(
            f"{volume!r} {what}; write '${{{WORKDIR_VARIABLE}}}:/target' or '/host/path:/target', "
            "with ':ro' after it for read-only"
        )


def _split(text: str) -> tuple[str, str, bool]:
    """Split `source:/target`, or the same with `:ro` or `:rw`: source, absolute target and whether it is read-only.

    Raises ValueError if the text is anything else.
    """
    parts = text.split(":")
    if len(parts) not in (2, 3) or (len(parts) == 3 and parts[2] not in ("ro", "rw")):
        raise NotAVolume(text)
    source, target = parts[0], parts[1]
    if not source or not target.startswith("/"):
        raise NotAVolume(text)
    return source, target, parts[2:] == ["ro"]
