"""Read docker's options in `extra_args` into the fields of a profile, and refuse those that no field can hold."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from taskcell.config.container_table import MIN_MEMORY, default_tmpfs
from taskcell.config.volumes import NotAVolume, mount_of
from taskcell.model import WORKSPACE, Profile
from taskcell.mounts import Mount, Tmpfs
from taskcell.profile.docker_flags import SWITCHES, Given, parse
from taskcell.profile.extra_mounts import read_mount, read_tmpfs
from taskcell.profile.refused_options import refusal_of
from taskcell.refusal import Refusal, Rule
from taskcell.text import shown
from taskcell.units import SHM, format_size, parse_cores, parse_size

_COUNT = re.compile(r"[0-9]{1,10}")
_HOSTNAME = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9.-]{0,61}[a-zA-Z0-9])?")
#: The options of the fields that a key may contradict.
_OPTIONS = {
    "memory": "memory", "cpus": "cpus", "pids": "pids-limit", "network": "network", "user": "user",
    "working_dir": "workdir", "gpus": "gpus", "platform": "platform", "remove": "rm", "read_only": "read-only",
    "entrypoint": "entrypoint",
}  # fmt: skip


@dataclass
class _Asked:
    """What the options that were read so far ask for."""

    fields: dict[str, Any] = field(default_factory=dict)
    environment: list[tuple[str, str]] = field(default_factory=list)
    mounts: list[Mount] = field(default_factory=list)
    tmpfs: list[Tmpfs] = field(default_factory=list)
    cap_add: list[str] = field(default_factory=list)
    namespaces: list[str] = field(default_factory=list)
    hosts: list[tuple[str, str]] = field(default_factory=list)
    dns: list[str] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)

    def refuse(self, rule: Rule, reason: str) -> None:
        self.refused.append(Refusal(rule, reason))

    def set(self, given: Given, name: str, value: object) -> None:
        if name in self.fields:
            self.refuse(Rule.EXTRA_ARGS, f"--{given.name} is in extra_args twice; remove one of them from extra_args.")
        self.fields[name] = value


def apply(profile: Profile, words: Sequence[str], written: Mapping[str, str]) -> Profile:
    """Return the profile with what the options ask for in its fields, and in `refused` what no field can hold.

    Arguments:
        words: `extra_args`, as docker would take them before the image.
        written: the profile's fields that the table sets itself, each with its key. An option that contradicts the
            table is refused: otherwise one of the two would be ignored.
    """
    given, malformed = parse(words)
    asked = _Asked(refused=list(malformed))
    for option in given:
        _ask(asked, option, profile)
    for name, value in asked.fields.items():
        if name in written and getattr(profile, name) != value:
            reason = (
                f"extra_args and the key '{written[name]}' say different things; remove --{_OPTIONS[name]} from "
                "extra_args, or leave the key out."
            )
            asked.refuse(Rule.EXTRA_ARGS, reason)
    memory = asked.fields.get("memory", profile.memory)
    usual = default_tmpfs(profile.memory)
    shm = None if profile.tmpfs == usual else profile.shm
    sizes = default_tmpfs(memory, shm) if "memory" in asked.fields else profile.tmpfs
    return replace(
        profile,
        **asked.fields,
        environment=(*profile.environment, *asked.environment),
        mounts=(*profile.mounts, *asked.mounts),
        tmpfs=(*(one for one in sizes if one.target not in {t.target for t in asked.tmpfs}), *asked.tmpfs),
        cap_add=(*profile.cap_add, *asked.cap_add),
        host_namespaces=(*profile.host_namespaces, *asked.namespaces),
        hosts=tuple(asked.hosts),
        dns=tuple(asked.dns),
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
    passed_on = shown(f"{name}?=${{{name}}}")
    reason = (
        f"--env {shown(name)} has no value, and would forward the server's own variable; write {passed_on} to pass it "
        "on where it is set, or KEY=value."
    )
    asked.refuse(Rule.ENVIRONMENT, reason)


def _volume(asked: _Asked, given: Given, profile: Profile) -> None:
    try:
        mount = mount_of(given.value)
    except ValueError as error:
        asked.refuse(Rule.MOUNTS, f"--volume {error}.")
        if isinstance(error, NotAVolume) and error.kept.startswith("/"):
            _add_mount(asked, mount_of(error.kept))  # so that everything is said of it at once
    else:
        _add_mount(asked, mount)


def _add_mount(asked: _Asked, mount: Mount) -> None:
    # The workspace is at /workspace already; asking for it there changes nothing.
    if mount != Mount(None, WORKSPACE):
        asked.mounts.append(mount)


def _mount(asked: _Asked, given: Given, profile: Profile) -> None:
    try:
        found = read_mount(given.value)
    except ValueError as error:
        asked.refuse(Rule.MOUNTS, f"{error}.")
    else:
        asked.tmpfs.append(found) if isinstance(found, Tmpfs) else _add_mount(asked, found)


def _tmpfs(asked: _Asked, given: Given, profile: Profile) -> None:
    try:
        asked.tmpfs.append(read_tmpfs(given.value))
    except ValueError as error:
        asked.refuse(Rule.TMPFS, f"{error}.")


def _shm_size(asked: _Asked, given: Given, profile: Profile) -> None:
    asked.tmpfs.append(Tmpfs(SHM, _number(asked, given, parse_size) or 0))


def _gpus(asked: _Asked, given: Given, profile: Profile) -> None:
    # The quotes are docker's own: its command line reads the value as a line of CSV.
    asked.set(given, "gpus", given.value.strip('"'))


def _hostname(asked: _Asked, given: Given, profile: Profile) -> None:
    if not _HOSTNAME.fullmatch(given.value):
        reason = f"--hostname {shown(given.value)} is not a name of a machine; write letters, digits, '-' and '.'."
        asked.refuse(Rule.FORM, reason)
    asked.set(given, "hostname", given.value)


def _host(asked: _Asked, given: Given, profile: Profile) -> None:
    name, address = (*re.split("[:=]", given.value, maxsplit=1), "")[:2]
    try:
        asked.hosts.append((name, str(ipaddress.ip_address(address.strip("[]")))))
    except ValueError:
        reason = f"--add-host {shown(given.value)} is not a name with its address; write it as in 'db:10.0.0.5', or "
        asked.refuse(Rule.FORM, f"{reason}remove it from extra_args.")
    else:
        if not _HOSTNAME.fullmatch(name):
            asked.refuse(Rule.FORM, f"--add-host {shown(name)} is not a name of a machine; remove it from extra_args.")


def _dns(asked: _Asked, given: Given, profile: Profile) -> None:
    try:
        asked.dns.append(str(ipaddress.ip_address(given.value)))
    except ValueError:
        reason = f"--dns {shown(given.value)} is not the address of a server; remove it from extra_args."
        asked.refuse(Rule.FORM, reason)


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
    "gpus": _gpus,
    "platform": _plain("platform"),
    "rm": _plain("remove"),
    "read-only": _plain("read_only"),
    "env": _variable,
    "volume": _volume,
    "mount": _mount,
    "tmpfs": _tmpfs,
    "shm-size": _shm_size,
    "cap-add": _capability,
    "hostname": _hostname,
    "add-host": _host,
    "dns": _dns,
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
