"""Judge where in the container mounts and file systems in memory may be. The rules are pure functions."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from taskcell.config.policy_tables import PolicySettings
from taskcell.model import MIB, WORKSPACE, Profile
from taskcell.policy.host_paths import HostFacts
from taskcell.refusal import Refusal, Rule, allowed_by_value
from taskcell.text import shown
from taskcell.units import format_size

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
#: MiB that processes need beside full file systems in memory.
_ROOM = 64
#: What a profile may mount in memory though it is guarded, or may not be mounted over in another way.
TMPFS_TARGETS = frozenset({"/tmp", "/var/tmp", "/run", "/dev/shm"})  # noqa: S108 - paths in the container
#: What to do with a mount whose place is not free.
_AWAY = "leave it out, or mount it elsewhere, such as below /mnt"


def is_at_or_below(path: str, folder: str) -> bool:
    """Compare by component: `/rootfs-data` is not below `/root`."""
    parts, others = _parts(path), _parts(folder)
    return parts[: len(others)] == others


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part]


def targets(profile: Profile) -> Iterator[Refusal]:
    """Yield refusals of the places of the profile's mounts."""
    in_memory = {tmpfs.target for tmpfs in profile.tmpfs}
    taken: list[str] = []
    for mount in profile.mounts:
        target = mount.target
        if not is_plain_path(target):
            yield Refusal(Rule.TARGETS, f"The mount target {shown(target)} must be absolute, without '..' or '//'.")
        elif is_needed(target):
            yield Refusal(Rule.TARGETS, f"Nothing may be mounted at {shown(target)}, {_why_needed(target)}; {_AWAY}.")
        elif target in in_memory or target in taken:
            yield Refusal(Rule.TARGETS, f"Something else is mounted at {shown(target)} already; {_AWAY}.")
        elif any(is_at_or_below(target, other) or is_at_or_below(other, target) for other in taken):
            # A link that a command left in the outer mount would lead the inner one to where it likes.
            reason = f"The mount target {shown(target)} lies in another mount, or around it; {_AWAY}."
            yield Refusal(Rule.TARGETS, reason)
        taken.append(target)


def _why_needed(target: str) -> str:
    if is_at_or_below(target, WORKSPACE):
        return "where the task's files are already"
    return "which the sandbox needs whole"


def in_memory(profile: Profile, policy: PolicySettings, host: HostFacts) -> Iterator[Refusal]:
    """Yield refusals of the profile's file systems in memory."""
    seen: set[str] = set()
    others = [mount.target for mount in profile.mounts]
    for tmpfs in profile.tmpfs:
        target = tmpfs.target
        if target not in TMPFS_TARGETS and (not is_plain_path(target) or is_needed(target)):
            yield Refusal(Rule.TMPFS, f"A file system in memory may not be at {shown(target)}; {_AWAY}.")
        elif target in seen or any(is_at_or_below(target, other) for other in others):
            reason = f"Something else is mounted at {shown(target)}, or around it, already; {_AWAY}."
            yield Refusal(Rule.TMPFS, reason)
        if tmpfs.size <= 0 or not 0 <= tmpfs.mode <= 0o1777:
            yield Refusal(
                Rule.TMPFS,
                f"The file system in memory at {shown(target)} needs a size above 0 and a mode of at most 1777.",
            )
        seen.add(target)
    total = profile.kept_in_memory
    if profile.memory is not None and total >= profile.memory:
        enough = total // MIB + _ROOM
        reason = (
            f"The file systems in memory, and System V IPC, may hold {format_size(total)}, which must stay below the "
            f"memory limit of {format_size(profile.memory)}"
        )
        if enough * MIB > policy.max_memory:
            yield allowed_by_value(Rule.TMPFS, reason, "max_memory", f"{enough}m", "make them smaller")
        yield Refusal(Rule.TMPFS, f"{reason}; write {enough}m of memory, or make them smaller.")


def is_needed(target: str) -> bool:
    """Whether a mount there could break the sandbox, or let a command out of it."""
    return target in KEPT_WHOLE or any(is_at_or_below(target, path) for path in GUARDED)


def is_plain_path(path: str) -> bool:
    """Whether a path is absolute, normalised (to the kernel `//x` is not), without control characters and colons."""
    plain = path.startswith("/") and not path.startswith("//") and posixpath.normpath(path) == path
    return plain and not any(ord(character) < 0x20 or character in ":\x7f" for character in path)
