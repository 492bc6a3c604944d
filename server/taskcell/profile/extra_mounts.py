"""Read the values of `--volume`, `--mount` and `--tmpfs`. Each reader raises ValueError with what to write instead."""

from __future__ import annotations

import re

from taskcell.config.volumes import WORKDIR_MARK, WORKDIR_VARIABLE, mount_of
from taskcell.mounts import Mount, Tmpfs
from taskcell.text import shown
from taskcell.units import parse_size

_MODE = re.compile(r"0?[0-7]{1,4}")
#: What tmpfs options may say because every file system in memory of a sandbox has it.
_HOLDS = frozenset({"rw", "nosuid", "nodev", "exec"})
#: Bytes of a file system in memory whose option names no size, as the sentence proposes.
_PROPOSED = "64m"
#: What `--mount` may say, under each of docker's names for it.
_KEYS = {"type": "type", "tmpfs-size": "size", "tmpfs-mode": "mode"}
_KEYS |= dict.fromkeys(("source", "src"), "source") | dict.fromkeys(("target", "dst", "destination"), "target")
_KEYS |= dict.fromkeys(("readonly", "ro"), "ro")
#: What it may say that changes nothing: the engine's own, or a hint that Linux does not know.
_HOLDING = {
    "bind-propagation": "rprivate", "consistency": "", "bind-nonrecursive": "true", "bind-recursive": "disabled",
}  # fmt: skip
_READ_ONLY = {"true": ":ro", "1": ":ro", "false": "", "0": ""}


def read_mount(value: str) -> Mount | Tmpfs:
    """Read `type=bind,source=/host,target=/target[,readonly]`, the same of a volume's name, or `type=tmpfs,…`."""
    said: dict[str, str] = {}
    for option in value.split(","):
        name, equals, text = option.partition("=")
        if name in _HOLDING and _HOLDING[name] in ("", text):
            continue
        if name not in _KEYS or _KEYS[name] in said:
            raise ValueError(f"{shown(name)} of --mount is not understood, or is there twice; {_write(said)}")
        said[_KEYS[name]] = text if equals else "true"
    if said.get("type") == "tmpfs":
        if "size" not in said:
            bounded = shown(f"type=tmpfs,target={said.get('target', '/target')},tmpfs-size={_PROPOSED}", 512)
            raise ValueError(f"--mount type=tmpfs has no bound; write {bounded}")
        options = [f"{key}={said[key]}" for key in ("size", "mode") if key in said]
        return read_tmpfs(f"{said.get('target', '')}:{','.join(options)}")
    kind, read_only = said.get("type"), _READ_ONLY.get(said.get("ro", "false"))
    if kind not in ("bind", "volume") or read_only is None or ":" in f"{said.get('source')}{said.get('target')}":
        raise ValueError(f"--mount mounts folders of the host, named volumes and the task's files; {_write(said)}")
    try:
        mount = mount_of(f"{said.get('source', '')}:{said.get('target', '')}{read_only}")
    except ValueError:
        mount = None
    if mount is None or bool(mount.volume) != (kind == "volume"):
        needed = "a volume's name as its source, and an absolute" if kind == "volume" else "an absolute source and"
        raise ValueError(f"--mount type={kind} needs {needed} target; {_write(said)}")
    return mount


def _write(said: dict[str, str]) -> str:
    """What to write, without a host's path, which may be secret."""
    target = said.get("target", "/target") if WORKDIR_MARK not in said.get("target", "") else "/target"
    files = f"type=bind,source=${{{WORKDIR_VARIABLE}}},target={target}{',readonly' if 'ro' in said else ''}"
    return f"write {shown(files, len(files))} for the task's files, or source=/host/path for a folder of the host"


def read_tmpfs(value: str) -> Tmpfs:
    """Read `/target:size=64m[,mode=0700][,noexec]`."""
    target, _, text = value.partition(":")
    size, mode, executable = 0, 0o1777, True
    kept, unknown = [], []
    for option in filter(None, text.split(",")):
        name, _, given = option.partition("=")
        if name == "size":
            size = _size(given)
        elif name == "mode" and _MODE.fullmatch(given):
            mode = int(given, 8)
        elif option == "noexec":
            executable = False
        elif option not in _HOLDS:
            unknown.append(option)
            continue
        kept.append(option)
    proposal = shown(f"{target}:{','.join([*kept, *([] if size else [f'size={_PROPOSED}'])])}", 512)
    if unknown:
        what = f"The option {shown(unknown[0])} of --tmpfs is not understood"
        raise ValueError(f"{what}, only size, mode and noexec are; write {proposal}")
    if not size:
        raise ValueError(f"--tmpfs {shown(target)} has no bound; write {proposal}")
    return Tmpfs(target, size, mode, executable)


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise ValueError(f"The size of --tmpfs {error}; it is {shown(text)}") from None
