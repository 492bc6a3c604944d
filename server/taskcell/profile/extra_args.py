"""Read docker's options in `extra_args` into the fields of a profile, and refuse those that no field can hold."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from taskcell.config.container_table import MIN_MEMORY, default_tmpfs
from taskcell.config.volumes import mount_of
from taskcell.model import WORKSPACE, Mount, Profile, Tmpfs
from taskcell.profile.docker_flags import SWITCHES, Given, parse
from taskcell.profile.refused_options import refusal_of
from taskcell.refusal import Refusal, Rule
from taskcell.text import shown
from taskcell.units import format_size, parse_cores, parse_size

_COUNT = re.compile(r"[0-9]{1,10}")
_MODE = re.compile(r"0?[0-7]{1,4}")
#: What tmpfs options may say because every file system in memory of a sandbox has it.
_TMPFS_HOLDS = frozenset({"rw", "nosuid", "nodev", "exec"})


@dataclass
class _Asked:
    """What the options that were read so far ask for."""

    fields: dict[str, Any] = field(default_factory=dict)
    environment: list[tuple[str, str]] = field(default_factory=list)
    mounts: list[Mount] = field(default_factory=list)
    tmpfs: list[Tmpfs] = field(default_factory=list)
    cap_add: list[str] = field(default_factory=list)
    namespaces: list[str] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)

    def refuse(self, rule: Rule, reason: str) -> None:
        self.refused.append(Refusal(rule, reason))

    def set(self, given: Given, name: str, value: object) -> None:
        if name in self.fields:
            self.refuse(Rule.EXTRA_ARGS, f"--{given.name} is in extra_args twice; leave one out.")
        self.fields[name] = value


def apply(profile: Profile, words: Sequence[str], written: Mapping[str, str]) -> Profile:
    """Return the profile with what the options ask for in its fields, and in `refused` what no field can hold.

    Arguments:
        words: `extra_args`, as docker would take them before the image.
        written: the profile's fields that the table sets itself, each with its key. An option that contradicts the
            table is refused: otherwise one of the two would be ignored.
    """
    given, malformed = parse(words)
    asked = _Asked()
    for option in given:
        _ask(asked, option, profile)
    if malformed is not None:
        asked.refused.append(malformed)
    for name, value in asked.fields.items():
        if name in written and getattr(profile, name) != value:
            reason = f"extra_args and the key '{written[name]}' say different things; leave one of the two out."
            asked.refuse(Rule.EXTRA_ARGS, reason)
    memory = asked.fields.get("memory", profile.memory)
    sizes = default_tmpfs(memory) if "memory" in asked.fields else profile.tmpfs
    return replace(
        profile,
        **asked.fields,
        environment=(*profile.environment, *asked.environment),
        mounts=(*profile.mounts, *asked.mounts),
        tmpfs=(*(one for one in sizes if one.target not in {t.target for t in asked.tmpfs}), *asked.tmpfs),
        cap_add=(*profile.cap_add, *asked.cap_add),
        host_namespaces=(*profile.host_namespaces, *asked.namespaces),
        refused=(*profile.refused, *asked.refused),
    )


def _ask(asked: _Asked, given: Given, profile: Profile) -> None:
    if given.name in _READERS:
        _READERS[given.name](asked, given, profile)
    elif not _holds_anyway(given, profile):
        asked.refused.append(refusal_of(given))


# --- options with a field ------------------------------------------------------------------------------------------


def _plain(name: str) -> Callable[[_Asked, Given, Profile], None]:
    def read(asked: _Asked, given: Given, profile: Profile) -> None:
        asked.set(given, name, given.is_on if given.name in SWITCHES else given.value)

    return read


def _memory(asked: _Asked, given: Given, profile: Profile) -> None:
    size = None if given.value == "0" else _number(asked, given, parse_size)
    if size is not None and size < MIN_MEMORY:
        asked.refuse(Rule.RESOURCES, f"--memory must be at least {format_size(MIN_MEMORY)}, the engine's minimum.")
    asked.set(given, "memory", size)


def _cpus(asked: _Asked, given: Given, profile: Profile) -> None:
    asked.set(given, "cpus", None if given.value == "0" else _number(asked, given, parse_cores))


def _pids(asked: _Asked, given: Given, profile: Profile) -> None:
    unbounded = given.value in ("0", "-1")
    if not unbounded and not _COUNT.fullmatch(given.value):
        asked.refuse(Rule.EXTRA_ARGS, f"The value of --pids-limit must be a count, not {shown(given.value)}.")
        return
    asked.set(given, "pids", None if unbounded else int(given.value))


def _number(asked: _Asked, given: Given, read: Callable[[object], Any]) -> Any:
    try:
        return read(given.value)
    except ValueError as error:
        asked.refuse(Rule.EXTRA_ARGS, f"The value of --{given.name} {error}; it is {shown(given.value)}.")
        return None


def _variable(asked: _Asked, given: Given, profile: Profile) -> None:
    name, equals, value = given.value.partition("=")
    if equals:
        asked.environment.append((name, value))
        return
    reason = f"--env {shown(name)} has no value, and would forward the server's own variable; write KEY=value."
    asked.refuse(Rule.ENVIRONMENT, reason)


def _volume(asked: _Asked, given: Given, profile: Profile) -> None:
    try:
        mount = mount_of(given.value)
    except ValueError:
        reason = (
            f"--volume {shown(given.value)} is not '/host/path:/target', nor '${{SKILL_WORKDIR}}:/target' for the "
            "task's files, with ':ro' after it for read-only."
        )
        asked.refuse(Rule.MOUNTS, reason)
    else:
        _add_mount(asked, mount)


def _add_mount(asked: _Asked, mount: Mount) -> None:
    # The workspace is at /workspace already; asking for it there changes nothing.
    if mount != Mount(None, WORKSPACE):
        asked.mounts.append(mount)


#: What `--mount` may say of a folder, under each of docker's names for it.
_MOUNT_KEYS = {"type": "type", **dict.fromkeys(("source", "src"), "source")}
_MOUNT_KEYS |= dict.fromkeys(("target", "dst", "destination"), "target") | dict.fromkeys(("readonly", "ro"), "ro")


def _mount(asked: _Asked, given: Given, profile: Profile) -> None:
    """Read `type=bind,source=/host,target=/target[,readonly]` as the volume of the same meaning."""
    said: dict[str, str] = {}
    for option in given.value.split(","):
        name, equals, value = option.partition("=")
        key = _MOUNT_KEYS.get(name)
        if key is None or key in said:
            asked.refuse(Rule.MOUNTS, f"{shown(name)} of --mount is not understood, or is there twice; {_AS_MOUNT}.")
            return
        said[key] = value if equals else "true"
    read_only = {"true": ":ro", "1": ":ro", "false": "", "0": ""}.get(said.get("ro", "false"))
    if said.get("type") != "bind" or read_only is None or ":" in f"{said.get('source')}{said.get('target')}":
        asked.refuse(Rule.MOUNTS, f"--mount mounts folders of the host and the task's files alone; {_AS_MOUNT}.")
        return
    try:
        _add_mount(asked, mount_of(f"{said.get('source', '')}:{said.get('target', '')}{read_only}"))
    except ValueError:
        asked.refuse(Rule.MOUNTS, f"--mount needs an absolute source and target; {_AS_MOUNT}.")


_AS_MOUNT = "write 'type=bind,source=/host/path,target=/target', with ',readonly' after it for read-only"


def _tmpfs(asked: _Asked, given: Given, profile: Profile) -> None:
    target, _, text = given.value.partition(":")
    size, mode = 0, 0o1777
    for option in filter(None, text.split(",")):
        name, _, value = option.partition("=")
        if name == "size":
            size = _number(asked, Given("tmpfs size", value), parse_size) or 0
        elif name == "mode" and _MODE.fullmatch(value):
            mode = int(value, 8)
        elif option not in _TMPFS_HOLDS:
            asked.refuse(Rule.TMPFS, f"The option {shown(option)} of --tmpfs is not understood; use size and mode.")
    if not size:
        asked.refuse(Rule.TMPFS, f"--tmpfs {shown(target)} has no bound; write {shown(target + ':size=64m')}.")
    asked.tmpfs.append(Tmpfs(target, size, mode))


def _shm_size(asked: _Asked, given: Given, profile: Profile) -> None:
    asked.tmpfs.append(Tmpfs("/dev/shm", _number(asked, given, parse_size) or 0))  # noqa: S108


def _capability(asked: _Asked, given: Given, profile: Profile) -> None:
    asked.cap_add.append(given.value)


def _entrypoint(asked: _Asked, given: Given, profile: Profile) -> None:
    if profile.kind == "terminal":
        asked.refuse(Rule.EXTRA_ARGS, "--entrypoint has no meaning for the terminal, which runs its shell.")
        return
    asked.set(given, "entrypoint", (given.value,) if given.value else ())


def _runtime(asked: _Asked, given: Given, profile: Profile) -> None:
    # Another runtime may isolate less than the operator's.
    if given.value != profile.runtime:
        reason = f"--runtime {shown(given.value)} is not the operator's choice; only engine.runtime sets the runtime."
        asked.refuse(Rule.EXTRA_ARGS, reason)


#: Options that can ask for a namespace of the host, with the name that a profile has for it.
_NAMESPACES = {"ipc": "ipc", "uts": "uts", "userns": "user", "pid": "pid", "cgroupns": "cgroup"}


def _namespace(asked: _Asked, given: Given, profile: Profile) -> None:
    if given.value == "host":
        asked.namespaces.append(_NAMESPACES[given.name])
    elif given.value and (given.name, given.value) not in (("ipc", "private"), ("cgroupns", "private")):
        reason = f"--{given.name} {shown(given.value)} is not the sandbox's own namespace; leave the option out."
        asked.refuse(Rule.NAMESPACES, reason)


_Reader = Callable[[_Asked, Given, Profile], None]
_READERS: dict[str, _Reader] = {
    "memory": _memory,
    "cpus": _cpus,
    "pids-limit": _pids,
    "network": _plain("network"),
    "user": _plain("user"),
    "workdir": _plain("working_dir"),
    "gpus": _plain("gpus"),
    "platform": _plain("platform"),
    "rm": _plain("remove"),
    "read-only": _plain("read_only"),
    "env": _variable,
    "volume": _volume,
    "mount": _mount,
    "tmpfs": _tmpfs,
    "shm-size": _shm_size,
    "cap-add": _capability,
    "entrypoint": _entrypoint,
    "runtime": _runtime,
    **dict.fromkeys(_NAMESPACES, _namespace),
}

# --- options without a field ---------------------------------------------------------------------------------------

#: Switches that docker turns on by itself, so that `false` asks for something.
_ON_BY_DEFAULT = frozenset({"disable-content-trust", "sig-proxy"})
#: Switches that ask for what every sandbox has: an init that reaps, a standard input, no health check, and a terminal
#: where a call wants one.
_HOLDING_SWITCHES = frozenset({"init", "interactive", "no-healthcheck", "tty"})
_HOLDING_VALUES = {
    "security-opt": frozenset({"no-new-privileges", "no-new-privileges:true", "no-new-privileges=true"}),
    "log-driver": frozenset({"none"}),
    "restart": frozenset({"no"}),
    "pull": frozenset({"missing"}),
}


def _holds_anyway(given: Given, profile: Profile) -> bool:
    """Whether the option asks for what every sandbox has, and so changes nothing."""
    if given.name == "security-opt" and profile.sudo:
        return False
    if given.name in SWITCHES:
        return given.name in _HOLDING_SWITCHES or not (given.is_on or given.name in _ON_BY_DEFAULT)
    return given.name == "cap-drop" or given.value in _HOLDING_VALUES.get(given.name, ())
