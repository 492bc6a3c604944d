"""The rules that a profile is judged by: each is a small function that yields its refusals."""

from __future__ import annotations

import math
import posixpath
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from taskcell.fields import check_variable_name
from taskcell.model import WORKSPACE, Profile, Reuse
from taskcell.reference import full_reference, shown
from taskcell.settings import PolicySettings
from taskcell.units import format_size

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_WORD = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")
_PLATFORM = re.compile(r"[a-z0-9][a-z0-9_.-]{0,31}(?:/[a-z0-9][a-z0-9_.-]{0,31}){0,2}")
_GPUS = re.compile(r"all|[0-9]{1,3}")
_USER = re.compile(r"(?P<user>[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,63})(?::(?P<group>[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,63}))?")
_NUMBER = re.compile(r"[0-9]+")
#: The engine's own limit. A larger number would wrap, to 0 or to the -1 that changes no user.
MAX_ID = 2**31 - 1

#: Folders that the kernel, the supervisor or the user database lives in: nothing may be mounted there or below.
GUARDED = ("/proc", "/sys", "/dev", "/run", "/var/run", "/etc", "/.taskcell", "/boot", WORKSPACE)
#: Folders whose loss breaks the image; folders below them may be mounted over.
KEPT_WHOLE = (
    "/",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/usr",
    "/usr/bin",
    "/usr/sbin",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local",
    "/usr/local/bin",
    "/usr/local/sbin",
    "/usr/local/lib",
    "/var",
)
#: What a profile may mount in memory. Others would hide the image's files.
TMPFS_TARGETS = frozenset({"/tmp", "/var/tmp", "/run", "/dev/shm"})  # noqa: S108 - paths in the container

#: Fields that can do no harm whatever they hold: how stdout is kept apart; a root file system inside one container
#: and its writable layer; whether a stopped container is kept.
HARMLESS = frozenset({"kind", "read_only", "remove"})


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a profile is refused, and by which rule."""

    rule: str
    reason: str


Rule = Callable[[Profile, PolicySettings], Iterator[Refusal]]


def judge(profile: Profile, policy: PolicySettings) -> Iterator[Refusal]:
    """Every refusal of a profile, in the order of the rules; none means that it is allowed."""
    for rule, _ in RULES:
        yield from rule(profile, policy)


def _form(profile: Profile, policy: PolicySettings) -> Iterator[Refusal]:
    if not _NAME.fullmatch(profile.name):
        yield Refusal("form", f"The profile's name {shown(profile.name)} may hold letters, digits, '_' and '-' only.")
    if any("\0" in word for word in (*(profile.entrypoint or ()), *(profile.command or ()))):
        yield Refusal("form", "The profile's entrypoint or command holds a NUL character.")
    if profile.working_dir is not None and not _is_plain_path(profile.working_dir):
        yield Refusal("form", f"The working directory {shown(profile.working_dir)} must be absolute, without '..'.")
    for label, value, pattern in (("platform", profile.platform, _PLATFORM), ("runtime", profile.runtime, _WORD)):
        if value and not pattern.fullmatch(value):
            yield Refusal("form", f"The {label} {shown(value)} is not the name of one.")


def _environment(profile: Profile, policy: PolicySettings) -> Iterator[Refusal]:
    for name, value in profile.environment:
        try:
            check_variable_name(name)
        except ValueError as error:
            yield Refusal("environment", f"{shown(name)} {error}.")
        if "\0" in value:
            yield Refusal("environment", f"The value of {shown(name)} holds a NUL character.")


def _image(profile: Profile, policy: PolicySettings) -> Iterator[Refusal]:
    try:
        full = full_reference(profile.image)
    except ValueError as error:
        yield Refusal("allowed-images", f"{error}.")
        return
    if not any(fnmatchcase(full, pattern) for pattern in policy.allowed_images):
        yield Refusal("allowed-images", f"The image {full} matches none of policy.allowed_images.")


def _capabilities(profile: Profile, policy: PolicySettings) -> Iterator[Refusal]:
    allowed = {_capability(name) for name in policy.allowed_capabilities}
    for name in profile.cap_add:
        if _capability(name) not in allowed and "ALL" not in allowed:
            yield Refusal(
                "allowed-capabilities", f"The capability {shown(name)} is not in policy.allowed_capabilities."
            )
        elif not re.fullmatch(r"[A-Z_]{2,40}", _capability(name)):
            yield Refusal("allowed-capabilities", f"{shown(name)} is not the name of a capability.")


def _network(profile: Profile, policy: PolicySettings) -> Iterator[Refusal]:
    network = profile.network
    if network == "none":
        return
    if network == "host":
        if "network" not in policy.allow_host_namespaces:
            yield Refusal("host-namespaces", "The host's network needs 'network' in policy.allow_host_namespaces.")
    elif not _WORD.fullmatch(network):
        yield Refusal("allow-networks", f"{shown(network)} is not a network's name; another container's is refused.")
    elif network not in policy.allow_networks:
        yield Refusal("allow-networks", f"The network '{network}' is not in policy.allow_networks.")


def _gpus(profile: Profile, policy: PolicySettings) -> Iterator[Refusal]:
    if profile.gpus and not policy.allow_gpus:
        yield Refusal("allow-gpus", "The profile asks for GPUs, and policy.allow_gpus is false.")
    elif profile.gpus and not _GPUS.fullmatch(profile.gpus):
        yield Refusal("allow-gpus", f"{shown(profile.gpus)} is not understood; gpus is 'all' or a count.")


def _sudo(profile: Profile, policy: PolicySettings) -> Iterator[Refusal]:
    if profile.sudo:
        yield Refusal("sudo", "The profile asks for sudo, which this version cannot do yet; leave sudo at false.")


def _user(profile: Profile, policy: PolicySettings) -> Iterator[Refusal]:
    match = _USER.fullmatch(profile.user)
    if match is None:
        yield Refusal("root-user", f"{shown(profile.user)} is not a user; write 'uid', 'uid:gid' or a name.")
        return
    for name in filter(None, match.group("user", "group")):
        if name == "root" or (_NUMBER.fullmatch(name) and not 1 <= int(name) <= MAX_ID):
            yield Refusal(
                "root-user",
                f"The user {shown(profile.user)} is root or no user at all; commands run as an unprivileged user.",
            )


def _resources(profile: Profile, policy: PolicySettings) -> Iterator[Refusal]:
    memory, most = profile.memory, policy.max_memory
    limits = (
        ("memory", memory, most, "" if memory is None else format_size(memory), format_size(most)),
        ("cpus", profile.cpus, policy.max_cpus, f"{profile.cpus}", f"{policy.max_cpus:g}"),
        ("pids", profile.pids, policy.max_pids, f"{profile.pids}", f"{policy.max_pids}"),
    )
    for label, value, highest, text, bound in limits:
        if value is None:
            if policy.require_resource_limits:
                yield Refusal("resource-limits", f"The profile must bound its {label}: at most {bound}.")
        elif not math.isfinite(value) or value <= 0:
            yield Refusal("resource-limits", f"The profile's {label} must be more than 0, not {text}.")
        elif value > highest:
            yield Refusal("resource-limits", f"The profile's {label} of {text} is over policy.max_{label}, {bound}.")


def _tmpfs(profile: Profile, policy: PolicySettings) -> Iterator[Refusal]:
    total = 0
    seen: set[str] = set()
    for tmpfs in profile.tmpfs:
        if tmpfs.target not in TMPFS_TARGETS or tmpfs.target in seen:
            yield Refusal(
                "tmpfs", f"A file system in memory may not be at {shown(tmpfs.target)}, or stands there twice."
            )
        if tmpfs.size <= 0 or not 0 <= tmpfs.mode <= 0o1777:
            yield Refusal("tmpfs", f"The file system in memory at {shown(tmpfs.target)} has no bound or an odd mode.")
        seen.add(tmpfs.target)
        total += tmpfs.size
    if profile.memory is not None and total >= profile.memory:
        sizes = f"{format_size(total)}, and the memory limit is {format_size(profile.memory)}"
        yield Refusal("tmpfs", f"The file systems in memory hold {sizes}: they must stay below it.")


def _mounts(profile: Profile, policy: PolicySettings) -> Iterator[Refusal]:
    seen = {tmpfs.target for tmpfs in profile.tmpfs}
    for mount in profile.mounts:
        target = mount.target
        if mount.source is not None:
            yield Refusal("host-mounts", f"A host folder may not be mounted (at {shown(target)}): only the workspace.")
        if not _is_plain_path(target):
            yield Refusal("mount-targets", f"The mount target {shown(target)} must be absolute, without '..' or '//'.")
        elif target in KEPT_WHOLE or any(target == path or target.startswith(path + "/") for path in GUARDED):
            yield Refusal("mount-targets", f"Nothing may be mounted at {shown(target)}, which the sandbox needs whole.")
        elif target in seen:
            yield Refusal("mount-targets", f"Something else is mounted at {shown(target)} already.")
        seen.add(target)


def _reuse(profile: Profile, policy: PolicySettings) -> Iterator[Refusal]:
    if profile.reuse is not Reuse.TASK:
        yield Refusal("reuse", "A fresh container for every call is not supported by this version yet.")


def _extra_args(profile: Profile, policy: PolicySettings) -> Iterator[Refusal]:
    if profile.extra_args:
        flag = profile.extra_args[0].partition("=")[0]
        yield Refusal("extra-args", f"The engine option {shown(flag)} is not allowed; remove it from extra_args.")


#: In order of judgement, each with the fields that it judges.
RULES: tuple[tuple[Rule, tuple[str, ...]], ...] = (
    (_extra_args, ("extra_args",)),
    (_form, ("name", "entrypoint", "command", "working_dir", "platform", "runtime")),
    (_image, ("image",)),
    (_user, ("user",)),
    (_sudo, ("sudo",)),
    (_capabilities, ("cap_add",)),
    (_network, ("network",)),
    (_gpus, ("gpus",)),
    (_resources, ("memory", "cpus", "pids")),
    (_mounts, ("mounts",)),
    (_tmpfs, ("tmpfs",)),
    (_environment, ("environment",)),
    (_reuse, ("reuse",)),
)


def _capability(name: str) -> str:
    return name.upper().removeprefix("CAP_")


def _is_plain_path(path: str) -> bool:
    """Absolute, normalised (which `//x` is not, to the kernel), and free of control characters and colons."""
    plain = path.startswith("/") and not path.startswith("//") and posixpath.normpath(path) == path
    return plain and not any(ord(character) < 0x20 or character in ":\x7f" for character in path)
