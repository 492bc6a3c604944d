"""From an authorised profile to what the engine is asked for, and whether it did what was asked. Pure.

The order: what every sandbox is (all of the contract's section 8), then the profile's own, never the other way round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from docker import APIClient
from docker.types import DeviceRequest, LogConfig, Mount

from taskcell.engine.base import ContainerSpec
from taskcell.errors import EngineError
from taskcell.model import MIB, WORKSPACE, Profile

#: Where the supervisor's volume is mounted, read-only, and the program in it.
SUPERVISOR_FOLDER = "/.taskcell"
SUPERVISOR = f"{SUPERVISOR_FOLDER}/supervisor"
#: The supervisor's socket, in a folder that only PID 1's user may enter.
SOCKET_FOLDER = "/run/taskcell"
SOCKET = f"{SOCKET_FOLDER}/supervisor.sock"
#: What PID 1 keeps: to change user, to clear the bounding set, and to kill what runs as another user. What it starts
#: has none of them.
SUPERVISOR_CAPABILITIES = ("KILL", "SETGID", "SETPCAP", "SETUID")
#: A volume that the image declares would be an unbounded folder on disk: it becomes a tmpfs of this size.
IMAGE_VOLUME_SIZE = 64 * MIB
#: cpus of 1.5 are 1 500 000 000 of the engine's unit.
_NANO = 1_000_000_000


def container_config(
    client: APIClient, spec: ContainerSpec, volume: str, image: Mapping[str, Any], runtime: str
) -> dict[str, Any]:
    """The body of the engine's "create container".

    Arguments:
        volume: name of the supervisor's volume.
        image: the engine's inspection of the image.
        runtime: of the engine; empty means its default.
    """
    config: dict[str, Any] = client.create_container_config(
        image["Id"],
        ["init", "--socket", SOCKET],
        entrypoint=[SUPERVISOR],
        user="0:0",
        hostname="sandbox",
        working_dir="/",
        labels=dict(spec.labels),
        healthcheck={"test": ["NONE"]},
        host_config=_host_config(client, spec, volume, image, runtime),
    )
    return config


def _host_config(
    client: APIClient, spec: ContainerSpec, volume: str, image: Mapping[str, Any], runtime: str
) -> dict[str, Any]:
    profile = spec.profile.profile
    shm = next((tmpfs.size for tmpfs in profile.tmpfs if tmpfs.target == "/dev/shm"), 64 * MIB)  # noqa: S108
    devices = [] if not profile.gpus else [_gpus(profile.gpus)]
    host: dict[str, Any] = client.create_host_config(
        auto_remove=profile.remove,
        cap_add=[*SUPERVISOR_CAPABILITIES, *profile.cap_add],
        cap_drop=["ALL"],
        security_opt=[] if profile.sudo else ["no-new-privileges"],
        read_only=profile.read_only,
        network_mode=profile.network,
        ipc_mode="private",
        mem_limit=profile.memory or 0,
        memswap_limit=profile.memory or 0,
        nano_cpus=round((profile.cpus or 0) * _NANO),
        pids_limit=profile.pids or -1,
        shm_size=shm,
        tmpfs=_tmpfs(profile, image),
        mounts=_mounts(spec, volume),
        log_config=LogConfig(type="none"),
        runtime=runtime or None,
        device_requests=devices or None,
    )
    return host


def _gpus(gpus: str) -> DeviceRequest:
    """`all`, a count, or `device=ID,…`, as `docker run --gpus` reads them."""
    if gpus.startswith("device="):
        return DeviceRequest(device_ids=gpus.removeprefix("device=").split(","), capabilities=[["gpu"]])
    return DeviceRequest(count=-1 if gpus == "all" else int(gpus), capabilities=[["gpu"]])


def _tmpfs(profile: Profile, image: Mapping[str, Any]) -> dict[str, str]:
    mounts = {target: _options(IMAGE_VOLUME_SIZE, 0o1777) for target in image["Config"].get("Volumes") or {}}
    for tmpfs in profile.tmpfs:
        if tmpfs.target != "/dev/shm":  # noqa: S108
            mounts[tmpfs.target] = _options(tmpfs.size, tmpfs.mode)
    taken = {WORKSPACE, *(mount.target for mount in profile.mounts)}
    mounts = {target: options for target, options in mounts.items() if target not in taken}
    mounts[SOCKET_FOLDER] = "rw,nosuid,nodev,noexec,size=65536,mode=0700,uid=0,gid=0"
    return mounts


def _options(size: int, mode: int) -> str:
    # `exec` because the engine's default for a tmpfs is noexec, and compilers and test runners execute what they wrote.
    return f"rw,nosuid,nodev,exec,size={size},mode={mode:o}"


def _mounts(spec: ContainerSpec, volume: str) -> list[Mount]:
    supervisor = Mount(SUPERVISOR_FOLDER, volume, type="volume", read_only=True, no_copy=True)
    targets = [(WORKSPACE, False)]
    for mount in spec.profile.profile.mounts:
        if mount.source is not None:  # the policy lets none through; it is not silently turned into something else
            raise EngineError(f"The host folder {mount.source} cannot be mounted: only the workspace can.")
        targets.append((mount.target, mount.read_only))
    return [
        supervisor,
        *(Mount(target, spec.workspace, type="volume", read_only=ro, no_copy=True) for target, ro in targets),
    ]


def not_as_asked(profile: Profile, inspected: Mapping[str, Any]) -> Sequence[str]:
    """Names of the hard limits that the engine dropped without an error, as rootless ones do."""
    host = inspected["HostConfig"]
    wrong = []
    if profile.memory and host.get("Memory") != profile.memory:
        wrong.append("memory")
    if profile.pids and host.get("PidsLimit") != profile.pids:
        wrong.append("pids")
    if profile.cpus and not _cpus_hold(profile.cpus, host):
        wrong.append("cpus")
    if bool(host.get("ReadonlyRootfs")) != profile.read_only:
        wrong.append("read_only")
    if host.get("NetworkMode") != profile.network:
        wrong.append("network")
    if not profile.sudo and not any("no-new-privileges" in option for option in host.get("SecurityOpt") or ()):
        wrong.append("no-new-privileges")
    if host.get("Privileged"):
        wrong.append("privileged")
    return wrong


def _cpus_hold(cpus: float, host: Mapping[str, Any]) -> bool:
    if host.get("NanoCpus"):
        return bool(host["NanoCpus"] == round(cpus * _NANO))
    # Podman answers in the older pair of quota and period.
    period = host.get("CpuPeriod") or 0
    return bool(period) and abs(host.get("CpuQuota", 0) / period - cpus) < 0.01
