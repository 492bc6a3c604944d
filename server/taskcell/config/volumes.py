"""Read volumes, which are written as for `docker run`: `source:/target`, with `:ro` after it for read-only."""

from __future__ import annotations

import re

from taskcell.mounts import Mount
from taskcell.text import shown

WORKDIR_VARIABLE = "SKILL_WORKDIR"
#: Stands for `${SKILL_WORKDIR}` in an expanded volume; no text from a file or an environment holds a NUL.
WORKDIR_MARK = "\0"

#: How a shell line of `docker run` names the folder that it is started in, or one below it.
_CURRENT_FOLDER = re.compile(r"(?:\.|\$PWD|\$\(pwd\)|`pwd`)(?P<below>/[^:]*)?:(?P<rest>.+)", re.DOTALL)
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]")
_NAMED = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,62}")
#: A colon that is not in a `${VAR:-default}`.
_SEPARATOR = re.compile(r":(?![^{}]*\})")
#: Characters of a volume that a sentence shows, so that it can be copied.
_SHOWN = 512


def check_shell_forms(volume: str) -> None:
    """Raise NotAVolume for a volume that only a shell understands."""
    if _CURRENT_FOLDER.fullmatch(volume):
        raise NotAVolume(volume)


def _for_files(rest: str) -> str:
    """A volume of the task's files with the target of another one, and its `ro`."""
    target, _, options = rest.partition(":")
    read_only = ":ro" if "ro" in options.split(",") else ""
    return shown(f"${{{WORKDIR_VARIABLE}}}:{target}{read_only}", _SHOWN)


def mount_of(volume: str) -> Mount:
    """Read an expanded volume: the workspace, an absolute path of the host, or a name. Raises NotAVolume."""
    source, target, read_only = _split(volume)
    if source == WORKDIR_MARK:
        return Mount(None, target, read_only)
    if _NAMED.fullmatch(source):
        return Mount(None, target, read_only, volume=source)
    if not source.startswith("/") or WORKDIR_MARK in source + target:
        raise NotAVolume(volume)
    return Mount(source, target, read_only)


class NotAVolume(ValueError):
    """A text is neither the workspace nor a path of the host with its place in the container."""

    def __init__(self, volume: str) -> None:
        parts = _SEPARATOR.split(volume, 2)
        #: What is left of it without options that mean nothing; empty where that is nothing either.
        self.kept = _kept(*parts) if len(parts) == 3 else ""
        super().__init__(f"{shown(volume.replace(WORKDIR_MARK, '${SKILL_WORKDIR}'), _SHOWN)} {_mend(volume)}")


def _mend(volume: str) -> str:
    """What is wrong with a volume, and what to write."""
    parts = _SEPARATOR.split(volume, 2)
    source, target, options = (*parts, "", "")[:3]
    rest = ":".join(parts[1:])
    if found := _CURRENT_FOLDER.fullmatch(volume):
        folder = "a folder below the one" if (found["below"] or "/").strip("/.") else "the folder"
        mend = f"for the task's files write {_for_files(found['rest'])}, or the absolute path of a folder of the host"
        sentence = f"would be {folder} that docker is started in; {mend}"
    elif _WINDOWS.match(volume):
        sentence = "is a path of Windows; write it as the machine of the engine has it, as in '/mnt/c/data:/data'"
    elif not rest and source.startswith("/"):
        sentence = "is a volume of the engine without a name; leave it out, and write into /workspace"
    elif rest and not target.startswith("/"):
        sentence = "has no absolute path of the container after ':'; write it as in '/host/path:/target'"
    elif options and (source.startswith(("/", "~", "$")) or _NAMED.fullmatch(source)):
        sentence = _options_mend(source, target, options.split(","))
    else:
        sentence = (
            f"is not understood; write '${{{WORKDIR_VARIABLE}}}:/target' or '/host/path:/target', with ':ro' after it "
            "for read-only"
        )
    return sentence


def _kept(source: str, target: str, options: str) -> str:
    return f"{source}:{target}{':ro' if 'ro' in options.split(',') else ''}"


def _options_mend(source: str, target: str, options: list[str]) -> str:
    kept = shown(_kept(source, target, ",".join(options)), _SHOWN)
    why = "has an option that is not understood"
    if {"z", "Z"} & set(options):
        why = "asks the engine to label the host's folder for SELinux, which is for the host to do, with chcon -Rt"
    return f"{why}; after the target only ':ro' has a meaning: write {kept}"


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
