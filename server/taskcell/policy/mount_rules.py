"""Judge mounts: which path of the host, and onto what in the container. The rules are pure functions."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator

from taskcell.config.policy_tables import PolicySettings
from taskcell.config.volumes import WORKDIR_VARIABLE
from taskcell.model import MIB, WORKSPACE, Mount, Profile
from taskcell.policy.host_paths import HostFacts, HostPath, PathKind
from taskcell.refusal import Refusal, Rule, allowed_by_element, allowed_by_value
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
#: What to do about a folder of the host that may not be mounted.
_ANOTHER = "name another folder"
#: Characters; the kernel's longest path is shorter.
MAX_TARGET = 5000
#: MiB that processes need beside full file systems in memory.
_ROOM = 64
#: What a profile may mount in memory though it is guarded, or may not be mounted over in another way.
TMPFS_TARGETS = frozenset({"/tmp", "/var/tmp", "/run", "/dev/shm"})  # noqa: S108 - paths in the container


def mounts(profile: Profile, policy: PolicySettings, host: HostFacts) -> Iterator[Refusal]:
    """Yield refusals of the profile's mounts. `host` says for each host path among them what was found there."""
    found = {path.asked: path for path in host.sources}
    for mount in profile.mounts:
        if mount.source is not None:
            path = found.get(mount.source)
            yield from _source(mount, path, policy, host)
            if path is not None:
                yield from _secret_files(path, host, _instead(mount))
            if path is not None and not mount.read_only:
                yield from _own_files(path, host, _instead(mount))
    yield from _targets(profile)


def workspace_root(path: HostPath, policy: PolicySettings, host: HostFacts) -> Iterator[Refusal]:
    """Yield refusals of `workspace.root`, where sandboxes write whatever `policy.allowed_mount_roots` says."""
    name = _named(path)
    yield from _blocked(name, path, policy, host)
    yield from _engine_own(name, path, policy, host)
    yield from _own_files(path, host)


def folder(profile: Profile, policy: PolicySettings, host: HostFacts) -> Iterator[Refusal]:
    """Yield refusals of the folder of the host that is the workspace of every task, and of who works in it."""
    asked = profile.folder
    if asked is None:
        return
    path = next((path for path in host.sources if path.asked == asked.path), None)
    if path is None:
        yield Refusal(Rule.FOLDER, f"The folder {shown(asked.path)} was not looked at, and cannot be mounted.")
        return
    name = _named(path)
    yield from _unfit(name, path)
    if path.exists and path.kind is not PathKind.FOLDER:
        yield Refusal(Rule.FOLDER, f"The host path {name} is not a folder; name one as workspace.folder.")
    yield from _too_much(name, path, host)
    yield from _owner(name, path, profile)
    yield from _blocked(name, path, policy, host)
    yield from _engine_own(name, path, policy, host)
    yield from _secret_files(path, host)
    yield from _live_socket(name, path, policy, host)
    if not profile.is_reader:
        yield from _own_files(path, host)


def _too_much(name: str, path: HostPath, host: HostFacts) -> Iterator[Refusal]:
    mend = "name the folder of one project as workspace.folder"
    if path.resolved == "/":
        yield Refusal(Rule.FOLDER, f"The whole file system of the host cannot be the workspace; {mend}.")
    elif any(_is_at_or_below(home.resolved, path.resolved) or path.identity in home.lineage for home in host.homes):
        reason = f"The folder {name} is, or holds, the home folder of whoever runs the server, with all their keys"
        yield Refusal(Rule.FOLDER, f"{reason}; {mend}.")


def _owner(name: str, path: HostPath, profile: Profile) -> Iterator[Refusal]:
    """What commands write belongs to whoever owns the folder, and so they run as that user."""
    assert profile.folder is not None
    if path.owner is None:
        return
    uid, gid = path.owner
    if uid == 0:
        reason = f"The folder {name} belongs to root, and no command runs as root; name a folder of a user's own"
        yield Refusal(Rule.FOLDER, f"{reason}, or give it to that user (chown).")
    elif path.owner != profile.folder.owner:
        reason = f"The folder {name} belongs to another user or group since the server was started; start it again"
        yield Refusal(Rule.FOLDER, f"{reason}, so that commands run as user {uid}.")
    elif not profile.is_reader and profile.user not in (f"{uid}:{gid}", str(uid)):
        reason = f"The folder {name} belongs to user {uid}, and the profile's commands would run as {profile.user!r}"
        yield Refusal(Rule.FOLDER, f"{reason}; leave 'user' out, or set workspace = \"ro\" if they only read.")


def _source(mount: Mount, path: HostPath | None, policy: PolicySettings, host: HostFacts) -> Iterator[Refusal]:
    asked = mount.source or ""
    if not asked.startswith("/") or any(ord(character) < 0x20 or character == "\x7f" for character in asked):
        yield Refusal(Rule.MOUNTS, f"The host path {shown(asked)} must be absolute, without control characters.")
    elif path is None:
        yield Refusal(Rule.MOUNTS, f"The host path {shown(asked)} was not looked at, and cannot be mounted.")
    else:
        name = _named(path)
        yield from _socket(name, path, policy)
        yield from _blocked(name, path, policy, host, _instead(mount))
        yield from _engine_own(name, path, policy, host, _instead(mount))
        yield from _outside(name, path, host, _instead(mount))
        yield from _live_socket(name, path, policy, host, _instead(mount))
        yield from _unfit(name, path)


def _own_files(path: HostPath, host: HostFacts, instead: str = _ANOTHER) -> Iterator[Refusal]:
    why = f"decides what the server does; mount it read-only (':ro'), or {instead}."
    yield from _touching(path, host.own, why)


def _secret_files(path: HostPath, host: HostFacts, instead: str = _ANOTHER) -> Iterator[Refusal]:
    why = f"holds a secret of the server; keep the secret elsewhere, or {instead}."
    yield from _touching(path, host.secret, why)


def _touching(path: HostPath, servers: Iterable[HostPath], why: str) -> Iterator[Refusal]:
    for own in servers:
        if _touch(path, own):
            reason = f"The host path {_named(path)} is, holds or lies in {shown(own.asked)}, which {why}"
            yield Refusal(Rule.OWN_FILES, reason)
            return  # the others have the same mend


def _socket(name: str, path: HostPath, policy: PolicySettings) -> Iterator[Refusal]:
    if path.kind is PathKind.SOCKET and not policy.allow_docker_socket:
        reason = f"The host path {name} is a socket, which may lead to the engine, and with it to all of the host"
        yield Refusal(Rule.SOCKETS, f"{reason}; policy.allow_docker_socket is false, so leave it out.")


def _engine_own(
    name: str, path: HostPath, policy: PolicySettings, host: HostFacts, instead: str = _ANOTHER
) -> Iterator[Refusal]:
    if not policy.allow_docker_socket and any(_touch(path, own) for own in host.engine):
        reason = f"The host path {name} holds, or is, a container engine's socket or files; {instead}."
        yield Refusal(Rule.SOCKETS, reason)


def _live_socket(
    name: str, path: HostPath, policy: PolicySettings, host: HostFacts, instead: str = _ANOTHER
) -> Iterator[Refusal]:
    if policy.allow_docker_socket or path.kind is not PathKind.FOLDER:
        return
    for live in host.live_sockets:
        if _is_at_or_below(live.resolved, path.resolved) or path.identity in live.lineage:
            reason = (
                f"The host path {name} holds the socket {shown(live.resolved)}, which a sandbox could speak to even "
                f"through a read-only mount; mount a folder without sockets, or {instead}."
            )
            yield Refusal(Rule.LIVE_SOCKETS, reason)
            return  # the others have the same mend


def _blocked(
    name: str, path: HostPath, policy: PolicySettings, host: HostFacts, instead: str = _ANOTHER
) -> Iterator[Refusal]:
    for blocked in host.blocked:
        # The key that allows sockets allows those that the list of paths names by default.
        if _touch(path, blocked) and not (policy.allow_docker_socket and blocked.kind is PathKind.SOCKET):
            reason = f"The host path {name} is, holds or lies in {shown(blocked.asked)} of policy.blocked_mount_paths"
            yield Refusal(Rule.BLOCKED, f"{reason}; {instead}.")
            return  # the others have the same mend


def _outside(name: str, path: HostPath, host: HostFacts, instead: str) -> Iterator[Refusal]:
    if not any(_is_at_or_below(path.resolved, root.resolved) for root in host.roots):
        why = f"The host path {name} is in none of policy.allowed_mount_roots"
        yield allowed_by_element(Rule.ROOTS, why, "allowed_mount_roots", path.resolved, instead)


def _instead(mount: Mount) -> str:
    """What may be at the place of a host folder that may not, as the end of a sentence."""
    if is_needed(mount.target) or not is_plain_path(mount.target):
        return "leave it out"
    workspace = f"${{{WORKDIR_VARIABLE}}}:{mount.target}{':ro' if mount.read_only else ''}"
    return f"write {shown(workspace, MAX_TARGET)} for the task's files"


def _unfit(name: str, path: HostPath) -> Iterator[Refusal]:
    wrong = {
        PathKind.MISSING: "does not exist; make it before it is mounted",
        PathKind.UNREADABLE: "cannot be read by the server; correct its permissions",
        PathKind.OTHER: "is a device or a pipe; only files and folders can be mounted",
    }
    if path.kind in wrong:
        yield Refusal(Rule.MOUNTS, f"The host path {name} {wrong[path.kind]}.")


def _named(path: HostPath) -> str:
    asked = shown(path.asked)
    return asked if path.resolved == path.asked else f"{asked}, which is {shown(path.resolved)},"


def _touch(one: HostPath, other: HostPath) -> bool:
    """Whether one is or holds the other: by name, as written or resolved, and by identity under any name."""
    for name in (other.resolved, _written(other)):
        if _is_at_or_below(name, one.resolved) or any(_is_at_or_below(x, name) for x in (one.resolved, _written(one))):
            return True
    return one.identity in other.lineage or other.identity in one.lineage


def _written(path: HostPath) -> str:
    return posixpath.normpath("/" + path.asked.lstrip("/"))


def _is_at_or_below(path: str, folder: str) -> bool:
    """Compare by component: `/rootfs-data` is not below `/root`."""
    parts, others = _parts(path), _parts(folder)
    return parts[: len(others)] == others


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part]


def _targets(profile: Profile) -> Iterator[Refusal]:
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
        elif any(_is_at_or_below(target, other) or _is_at_or_below(other, target) for other in taken):
            # A link that a command left in the outer mount would lead the inner one to where it likes.
            reason = f"The mount target {shown(target)} lies in another mount, or around it; {_AWAY}."
            yield Refusal(Rule.TARGETS, reason)
        taken.append(target)


#: What to do with a mount whose place is not free.
_AWAY = "leave it out, or mount it elsewhere, such as below /mnt"


def _why_needed(target: str) -> str:
    if _is_at_or_below(target, WORKSPACE):
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
        elif target in seen or any(_is_at_or_below(target, other) for other in others):
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
    return target in KEPT_WHOLE or any(_is_at_or_below(target, path) for path in GUARDED)


def is_plain_path(path: str) -> bool:
    """Whether a path is absolute, normalised (to the kernel `//x` is not), without control characters and colons."""
    plain = path.startswith("/") and not path.startswith("//") and posixpath.normpath(path) == path
    return plain and not any(ord(character) < 0x20 or character in ":\x7f" for character in path)
