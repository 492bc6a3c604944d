"""Find out what paths of the host really are: links resolved, and an identity to compare a later look with.

No other module below the engine looks at the host's file system for mounts. `mount_rules` judges what is found here,
and looks at nothing itself.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import Enum

from taskcell.config.policy_tables import PolicySettings

#: Device and inode: what a file or folder is, whatever it is called and wherever it is mounted.
Identity = tuple[int, int]

#: A descriptor that names a file without opening it: no permission on it is needed, and no device is woken by it.
_NAME_ONLY = getattr(os, "O_PATH", os.O_RDONLY | os.O_NONBLOCK) | os.O_NOFOLLOW | os.O_CLOEXEC

#: Sockets and files of container engines: whoever has one of them has the host. They are checked even if they do not
#: exist.
ENGINE_PATHS = (
    "/run/docker.sock",
    "/run/docker",
    "/run/podman",
    "/run/containerd",
    "/run/crio",
    "/run/buildkit",
    "/run/k3s",
    "/run/runc",
    "/run/crun",
    "/var/lib/docker",
    "/var/lib/containerd",
    "/var/lib/containers",
    "/var/lib/kubelet",
    "/var/lib/rancher",
)
_USERS = "/run/user"
#: The kernel's table of unix sockets, of the network namespace of whoever reads it; the path is the last column.
_BOUND_SOCKETS = "/proc/net/unix"
_PATH_COLUMN = 7
#: Below `/run/user/UID`, where a rootless engine keeps its own.
ENGINE_PATHS_OF_A_USER = ("docker.sock", "docker", "podman", "containers", "containerd")
#: Below a home folder; looked for, so that a home without them can be mounted.
ENGINE_PATHS_OF_A_HOME = (
    ".docker/run/docker.sock",
    ".docker/desktop/docker.sock",
    ".colima/default/docker.sock",
    ".orbstack/run/docker.sock",
    ".rd/docker.sock",
    ".lima/docker/sock/docker.sock",
    ".local/share/docker",
    ".local/share/containers",
)


class PathKind(Enum):
    FOLDER = "folder"
    FILE = "file"
    SOCKET = "socket"
    OTHER = "device or pipe"
    MISSING = "missing"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class HostPath:
    """One path, as it was found.

    Arguments:
        asked: as it was written.
        resolved: absolute, without links, `..` or `//`, as far as it exists.
        lineage: identities from `/` down to the path itself; cut short where the path is missing or cannot be read.
        owner: uid and gid; None where the path is missing or cannot be read.
    """

    asked: str
    resolved: str
    kind: PathKind
    lineage: tuple[Identity, ...] = ()
    owner: tuple[int, int] | None = None

    @property
    def exists(self) -> bool:
        return self.kind not in (PathKind.MISSING, PathKind.UNREADABLE)

    @property
    def identity(self) -> Identity | None:
        return self.lineage[-1] if self.exists else None


@dataclass(frozen=True, slots=True)
class HostFacts:
    """All that the rules over mounts need to know about the host.

    Arguments:
        sources: the paths that the profile wants to mount.
        blocked, roots: the paths of `policy.blocked_mount_paths` and `policy.allowed_mount_roots`.
        engine: sockets and files of container engines.
        own: files that decide what the server does, such as its configuration file.
        secret: files that no sandbox may even read, such as one with a password.
        live_sockets: sockets that a process has bound, as far as the kernel lists them.
        homes: the home folder of whoever runs the server, under each of the names that it may have.
    """

    sources: tuple[HostPath, ...] = ()
    blocked: tuple[HostPath, ...] = ()
    roots: tuple[HostPath, ...] = ()
    engine: tuple[HostPath, ...] = ()
    own: tuple[HostPath, ...] = ()
    secret: tuple[HostPath, ...] = ()
    live_sockets: tuple[HostPath, ...] = ()
    homes: tuple[HostPath, ...] = ()


class Changed(Exception):
    """A path is not what it was at the first look any more."""


def survey(
    sources: Iterable[str],
    policy: PolicySettings,
    engine_socket: str = "",
    own_files: Iterable[str] = (),
    secret_files: Iterable[str] = (),
) -> HostFacts:
    """Look at the host paths that a profile wants to mount, and at those that the policy names.

    Arguments:
        engine_socket: path of the socket that the engine in use answers at; empty where that is not known.
        own_files: absolute paths of files that decide what the server does.
        secret_files: absolute paths of files that no sandbox may even read.
    """
    return HostFacts(
        sources=tuple(map(look, sources)),
        blocked=tuple(map(look, policy.blocked_mount_paths)),
        roots=tuple(map(look, policy.allowed_mount_roots)),
        engine=tuple(_engine_paths(engine_socket)),
        own=tuple(found for path in own_files for found in _with_manifests(path)),
        secret=tuple(map(look, secret_files)),
        live_sockets=tuple(_live_sockets()),
        homes=tuple(map(look, sorted(_homes()))),
    )


def look(asked: str) -> HostPath:
    """Look at an absolute path. Never raises: a path that is missing or unreadable has a kind that says so."""
    path = "/" + asked.lstrip("/")
    try:
        resolved = os.path.realpath(path, strict=True)
        with _walked(resolved) as (lineage, found):
            return HostPath(asked, resolved, _kind(found.st_mode), lineage, (found.st_uid, found.st_gid))
    except FileNotFoundError:
        return HostPath(asked, _as_far_as_it_exists(path), PathKind.MISSING)
    except (OSError, ValueError):
        return HostPath(asked, _as_far_as_it_exists(path), PathKind.UNREADABLE)


@contextmanager
def held(paths: Iterable[HostPath]) -> Iterator[None]:
    """Keep the paths' inodes from being freed, so that nothing else can get their identity meanwhile.

    Raises Changed if one of them has become something else.
    """
    with ExitStack() as stack:
        for path in paths:
            try:
                lineage, _ = stack.enter_context(_walked(path.resolved))
            except OSError:
                raise Changed(path.asked) from None
            if lineage[-1] != path.identity:
                raise Changed(path.asked)
        yield


@contextmanager
def _walked(path: str) -> Iterator[tuple[tuple[Identity, ...], os.stat_result]]:
    """Go down component by component without following a link. Yields lineage and status; holds the last one open."""
    current = os.open("/", _NAME_ONLY | os.O_DIRECTORY)
    try:
        found = os.fstat(current)
        lineage = [(found.st_dev, found.st_ino)]
        for part in filter(None, path.split("/")):
            following = os.open(part, _NAME_ONLY, dir_fd=current)
            os.close(current)
            current = following
            found = os.fstat(current)
            if stat.S_ISLNK(found.st_mode):
                raise OSError(f"{part!r} is a link")
            lineage.append((found.st_dev, found.st_ino))
        yield tuple(lineage), found
    finally:
        os.close(current)


def _kind(mode: int) -> PathKind:
    if stat.S_ISDIR(mode):
        return PathKind.FOLDER
    if stat.S_ISREG(mode):
        return PathKind.FILE
    return PathKind.SOCKET if stat.S_ISSOCK(mode) else PathKind.OTHER


def _as_far_as_it_exists(path: str) -> str:
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):
        return os.path.normpath(path)


def _engine_paths(engine_socket: str) -> Iterator[HostPath]:
    yield from map(look, ENGINE_PATHS)
    if engine_socket:
        yield look(engine_socket)
    yield from (look(f"{_USERS}/{user}/{name}") for user in _users() for name in ENGINE_PATHS_OF_A_USER)
    try:
        home = pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:  # a user without an entry has no home to look into
        return
    yield from filter(lambda path: path.exists, (look(f"{home}/{name}") for name in ENGINE_PATHS_OF_A_HOME))


def _homes() -> set[str]:
    """Return the home folder of whoever runs the server, as the user database and as the environment name it."""
    try:
        named = {pwd.getpwuid(os.getuid()).pw_dir}
    except KeyError:
        named = set()
    return {path for path in (*named, os.path.expanduser("~")) if path.startswith("/")}


def _with_manifests(path: str) -> Iterator[HostPath]:
    """Yield a path, and for a folder the manifests in it too: they may be links to elsewhere."""
    yield look(path)
    try:
        names = sorted(os.listdir(path))
    except OSError:  # a file, or nothing that could be read as manifests
        return
    yield from (look(f"{path}/{name}") for name in names if name.endswith(".toml"))


def _live_sockets() -> Iterator[HostPath]:
    """Yield sockets with a path that processes of this network namespace have bound, and that still exist."""
    try:
        with open(_BOUND_SOCKETS, encoding="utf-8", errors="surrogateescape") as table:
            columns = [line.rstrip("\n").split(None, _PATH_COLUMN) for line in table]
    except OSError:
        return
    named = {line[_PATH_COLUMN] for line in columns if len(line) > _PATH_COLUMN}
    found = (look(path) for path in sorted(named) if path.startswith("/"))
    yield from (path for path in found if path.kind in (PathKind.SOCKET, PathKind.UNREADABLE))


def _users() -> set[str]:
    """Return the numbers of this user, and of everyone who is logged in."""
    try:
        return {str(os.getuid()), *os.listdir(_USERS)}
    except OSError:
        return {str(os.getuid())}
