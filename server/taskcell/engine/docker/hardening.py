"""From an authorised profile to what the engine is asked for. Pure.

The order: what every sandbox is (the table in docs/security.md), then the profile's own, never the other way round.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from docker import APIClient
from docker.types import DeviceRequest, DriverConfig, LogConfig, Mount

from taskcell.engine.base import ContainerSpec
from taskcell.engine.docker.ipc_bounds import ipc_settings
from taskcell.engine.docker.memory_volume import (
    OWN_MODE,
    SHARED_GROUP,
    SHARED_MODE,
    is_roots,
    own_in_memory,
    volumes_in_memory,
    with_mode,
    workspace_options,
)
from taskcell.engine.docker.read_back import NANO
from taskcell.engine.docker.volume_names import mounts_of
from taskcell.model import WORKSPACE, Profile
from taskcell.mounts import Tmpfs
from taskcell.policy.capabilities import root_capabilities, start_capabilities
from taskcell.policy.policy import HostMount

#: Where the supervisor's volume is mounted, read-only, and the program in it.
SUPERVISOR_FOLDER = "/.taskcell"
SUPERVISOR = f"{SUPERVISOR_FOLDER}/supervisor"
#: Of the supervisor's volume, whoever makes it: the engine itself does where somebody has removed it.
SUPERVISOR_LABELS = {"taskcell": "1", "taskcell.kind": "supervisor"}
#: The supervisor's socket, in a folder that only PID 1's user may enter.
SOCKET_FOLDER = "/run/taskcell"
SOCKET = f"{SOCKET_FOLDER}/supervisor.sock"
#: The supervisor makes it beside the folder of its socket.
REPORTS = f"{SOCKET_FOLDER}.state"
#: Of its `init`: a group that all it starts is in, so that several users can write a task's files.
GROUP_OPTION = "--group"
#: What PID 1 keeps: to change user, to clear the bounding set, and to kill what runs as another user. What it starts
#: has none of them.
SUPERVISOR_CAPABILITIES = ("KILL", "SETGID", "SETPCAP", "SETUID")
#: The name that a sandbox gives itself, and its address where sudo would else complain that it has none.
HOSTNAME, OWN_ADDRESS = "sandbox", "127.0.1.1"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a new container gets its workspace from.

    Arguments:
        volume: name of a volume, or a folder; empty: the engine makes a volume that goes with the last of its owners.
        container: id of one that owns such a volume, to own it too; empty: none.
        is_fresh: no file of an earlier sandbox can be in it.
        owner: uid and gid of a volume in memory, in the numbers of the engine's machine.
        user: uid and gid of whom commands run as, in the container; None where the engine gives nobody file systems in
            memory, which are root's then.
    """

    volume: str = ""
    container: str = ""
    is_fresh: bool = True
    owner: tuple[int, int] = (1000, 1000)
    user: tuple[int, int] | None = (1000, 1000)

    @property
    def is_owned(self) -> bool:
        """The engine removes the volume by itself when its last owner goes."""
        return not self.volume or bool(self.container)


def container_config(
    client: APIClient,
    spec: ContainerSpec,
    host_mounts: Sequence[HostMount],
    *,
    volume: str,
    place: Place,
    image: Mapping[str, Any],
    runtime: str,
    seccomp: str,
    maps_users: bool,
) -> dict[str, Any]:
    """The body of the engine's "create container".

    Arguments:
        host_mounts: what the policy has just allowed of the host.
        volume: name of the supervisor's volume.
        place: where the workspace comes from.
        image: the engine's inspection of the image.
        runtime: of the engine; empty means its default.
        seccomp: the security option with the filter of system calls; empty: the engine's own filter.
        maps_users: the engine maps root of a container to another user.
    """
    profile = spec.profile
    config: dict[str, Any] = client.create_container_config(
        image["Id"],
        [
            *("init", "--socket", SOCKET, "--claim", str(round(spec.claim_within * 1000))),
            *(() if "ipc" in profile.host_namespaces else ("--own-ipc",)),
            *((GROUP_OPTION, str(SHARED_GROUP)) if spec.shares_files else ()),
            *_modes(profile, image, place.user),
        ],
        entrypoint=[SUPERVISOR],
        user="0:0",
        # The engine refuses a name of its own in the host's UTS namespace.
        hostname=None if "uts" in profile.host_namespaces else profile.hostname or HOSTNAME,
        working_dir="/",
        labels=dict(spec.labels),
        healthcheck={"test": ["NONE"]},
        host_config=_host_config(
            client,
            profile,
            mounts=[*_volumes(spec, place, volume), *mounts_of(spec), *_binds(host_mounts)],
            volumes_from=place.container and f"{place.container}:{'ro' if profile.is_reader else 'rw'}",
            tmpfs=_tmpfs(profile, image, place.user),
            runtime=runtime,
            seccomp=seccomp,
            maps_users=maps_users,
        ),
    )
    return config


def _host_config(
    client: APIClient,
    profile: Profile,
    *,
    mounts: Sequence[Mount],
    volumes_from: str,
    tmpfs: Mapping[str, str],
    runtime: str,
    seccomp: str,
    maps_users: bool,
) -> dict[str, Any]:
    host: dict[str, Any] = client.create_host_config(
        auto_remove=profile.remove,
        cap_add=sorted({*SUPERVISOR_CAPABILITIES, *root_capabilities(profile), *start_capabilities(profile)}),
        cap_drop=["ALL"],
        security_opt=[*([] if profile.sudo else ["no-new-privileges"]), *([seccomp] if seccomp else [])],
        sysctls=ipc_settings(profile, maps_users=maps_users),
        read_only=profile.read_only,
        network_mode=profile.network,
        ipc_mode="host" if "ipc" in profile.host_namespaces else "private",
        uts_mode="host" if "uts" in profile.host_namespaces else None,
        userns_mode="host" if "user" in profile.host_namespaces else None,
        cgroupns="private",
        mem_limit=profile.memory or 0,
        memswap_limit=profile.memory or 0,
        nano_cpus=round((profile.cpus or 0) * NANO),
        pids_limit=profile.pids or -1,
        shm_size=profile.shm,
        tmpfs=dict(tmpfs),
        mounts=list(mounts),
        volumes_from=[volumes_from] if volumes_from else None,
        log_config=LogConfig(type="none"),
        runtime=runtime or None,
        device_requests=[_gpus(profile.gpus)] if profile.gpus else None,
        # A list, because one name may have several addresses.
        storage_opt={"size": str(profile.disk)} if profile.disk else None,
        extra_hosts=[f"{name}:{address}" for name, address in (*_own_host(profile), *profile.hosts)],
        dns=list(profile.dns) or None,
    )
    return host


def _own_host(profile: Profile) -> tuple[tuple[str, str], ...]:
    """The sandbox's own name, which sudo looks up."""
    return ((profile.hostname or HOSTNAME, OWN_ADDRESS),) if profile.sudo else ()


def _gpus(gpus: str) -> DeviceRequest:
    """`all`, a count, or `device=ID,…`, as `docker run --gpus` reads them."""
    if gpus.startswith("device="):
        return DeviceRequest(device_ids=gpus.removeprefix("device=").split(","), capabilities=[["gpu"]])
    return DeviceRequest(count=-1 if gpus == "all" else int(gpus), capabilities=[["gpu"]])


def _modes(profile: Profile, image: Mapping[str, Any], user: tuple[int, int] | None) -> Iterator[str]:
    """Words for the supervisor, which gives what is root's its mode: see `init/modes.c`."""
    of_image = [] if user else [replace(mount, mode=0o1777) for mount in volumes_in_memory(profile, image)]
    for mount in (*of_image, *own_in_memory(profile)):
        if is_roots(mount) or not user:
            yield from ("--mode", with_mode(mount))


def _tmpfs(profile: Profile, image: Mapping[str, Any], user: tuple[int, int] | None) -> dict[str, str]:
    """Options by target."""
    mounts = {
        mount.target: _options(mount, None if is_roots(mount) else user)
        for mount in (*volumes_in_memory(profile, image), *own_in_memory(profile))
    }
    # Root's, which some engines take for an unknown option when it is named.
    mounts[SOCKET_FOLDER] = "rw,nosuid,nodev,noexec,size=65536,mode=0700"
    return mounts


def _options(mount: Tmpfs, owner: tuple[int, int] | None) -> str:
    # `exec` because the engine's default for a tmpfs is noexec, and compilers and test runners execute what they wrote.
    plain = f"rw,nosuid,nodev,{'exec' if mount.executable else 'noexec'},size={mount.size},mode={mount.mode:o}"
    return plain if owner is None else f"{plain},uid={owner[0]},gid={owner[1]}"


def _volumes(spec: ContainerSpec, place: Place, volume: str) -> list[Mount]:
    profile = spec.profile
    targets: list[tuple[str, bool]] = []
    if profile.folder is None:  # else it is one of the host's folders
        targets += [] if place.container else [(WORKSPACE, profile.is_reader)]
        own = (mount for mount in profile.mounts if mount.is_workspace)
        targets += [(mount.target, mount.read_only or profile.is_reader) for mount in own]
    return [
        Mount(SUPERVISOR_FOLDER, volume, type="volume", read_only=True, no_copy=True, labels=SUPERVISOR_LABELS),
        *(_workspace(spec, place, target, read_only) for target, read_only in targets),
    ]


def _workspace(spec: ContainerSpec, place: Place, target: str, read_only: bool) -> Mount:
    if spec.workspace.folder:
        return _bind(target, spec.workspace.folder, read_only)
    # In memory with its options, though it exists: an engine that finds it removed would make an unbounded one on disk.
    in_memory = workspace_options(spec.workspace.size, place.owner, mode_of(spec))
    options = None if spec.workspace.persistent else DriverConfig("local", in_memory)
    return Mount(
        target,
        place.volume or None,
        type="volume",
        read_only=read_only,
        no_copy=True,
        labels=dict(spec.labels) | {"taskcell.kind": "workspace"},
        driver_config=options,
    )


def mode_of(spec: ContainerSpec) -> int:
    """Of the folder with the task's files."""
    return SHARED_MODE if spec.shares_files else OWN_MODE


def _binds(host_mounts: Sequence[HostMount]) -> list[Mount]:
    """The host's folders alone: what else is mounted below them was not judged, and could not be made read-only."""
    return [_bind(mount.target, mount.path.resolved, mount.read_only) for mount in host_mounts]


def _bind(target: str, source: str, read_only: bool) -> Mount:
    bind = Mount(target, source, type="bind", read_only=read_only, propagation="rprivate")
    bind["BindOptions"]["NonRecursive"] = True
    return bind
