"""Judge mounts: which path of the host, and onto what in the container. The rules are pure functions."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from taskcell.config.policy_tables import PolicySettings
from taskcell.config.volumes import WORKDIR_VARIABLE
from taskcell.model import Profile
from taskcell.mounts import Mount
from taskcell.policy.host_paths import HostFacts, HostPath, PathKind
from taskcell.policy.target_rules import is_at_or_below, is_needed, is_plain_path, targets
from taskcell.refusal import Refusal, Rule, allowed_by_element
from taskcell.text import shown

#: What to do about a folder of the host that may not be mounted.
_ANOTHER = "name another folder"
#: Characters; the kernel's longest path is shorter.
MAX_TARGET = 5000


def mounts(profile: Profile, policy: PolicySettings, host: HostFacts) -> Iterator[Refusal]:
    """Yield refusals of the profile's mounts. `host` says for each host path among them what was found there."""
    found = {path.asked: path for path in host.sources}
    for mount in profile.mounts:
        if mount.volume:
            yield from _volume(mount, policy)
        if mount.source is not None:
            path = found.get(mount.source)
            yield from _source(mount, path, policy, host)
            if path is not None:
                yield from _secret_files(path, host, _instead(mount))
            if path is not None and not mount.read_only:
                yield from _own_files(path, host, _instead(mount))
    yield from targets(profile)


def _volume(mount: Mount, policy: PolicySettings) -> Iterator[Refusal]:
    if not any(fnmatchcase(mount.volume, pattern) for pattern in policy.allowed_volumes):
        why = f"The volume {shown(mount.volume)} matches none of policy.allowed_volumes"
        yield allowed_by_element(Rule.VOLUMES, why, "allowed_volumes", mount.volume, _instead(mount))


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
    elif any(is_at_or_below(home.resolved, path.resolved) or path.identity in home.lineage for home in host.homes):
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
        if is_at_or_below(live.resolved, path.resolved) or path.identity in live.lineage:
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
    if not any(is_at_or_below(path.resolved, root.resolved) for root in host.roots):
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
        if is_at_or_below(name, one.resolved) or any(is_at_or_below(x, name) for x in (one.resolved, _written(one))):
            return True
    return one.identity in other.lineage or other.identity in one.lineage


def _written(path: HostPath) -> str:
    return posixpath.normpath("/" + path.asked.lstrip("/"))
