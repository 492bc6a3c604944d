"""Whether the engine says that it did what it was asked for. Pure.

What it says is compared here; what is there, from inside the sandbox, in `sandbox/as_asked.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from taskcell.model import WORKSPACE, Profile
from taskcell.policy.policy import HostMount

#: cpus of 1.5 are 1 500 000 000 of the engine's unit.
NANO = 1_000_000_000


def not_as_asked(
    profile: Profile, host_mounts: Sequence[HostMount], inspected: Mapping[str, Any], *, has_filter: bool
) -> Sequence[str]:
    """Names of what the engine dropped or changed without an error, as rootless ones do with limits."""
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
    if profile.disk and (host.get("StorageOpt") or {}).get("size") != str(profile.disk):
        wrong.append("disk")
    if host.get("NetworkMode") != profile.network:
        wrong.append("network")
    if not profile.sudo and not any("no-new-privileges" in option for option in host.get("SecurityOpt") or ()):
        wrong.append("no-new-privileges")
    if has_filter and not any(option.startswith("seccomp=") for option in host.get("SecurityOpt") or ()):
        wrong.append("seccomp")
    if host.get("Privileged"):
        wrong.append("privileged")
    wrong += [
        key for key in ("PidMode", "UTSMode", "IpcMode", "UsernsMode", "CgroupnsMode") if _shares(profile, host, key)
    ]
    found = inspected.get("Mounts") or ()
    if not all(_is_mounted(mount, found) for mount in host_mounts):
        wrong.append("volumes")
    if profile.is_reader and any(one.get("Destination") == WORKSPACE and one.get("RW") for one in found):
        wrong.append("workspace")
    return wrong


_NAMESPACE_KEYS = {"UTSMode": "uts", "IpcMode": "ipc", "UsernsMode": "user"}


def _shares(profile: Profile, host: Mapping[str, Any], key: str) -> bool:
    """A namespace is the host's that the profile does not name."""
    return host.get(key) == "host" and _NAMESPACE_KEYS.get(key) not in profile.host_namespaces


def _is_mounted(mount: HostMount, found: Sequence[Mapping[str, Any]]) -> bool:
    return any(
        one.get("Source") == mount.path.resolved
        and one.get("Destination") == mount.target
        and one.get("RW") is (not mount.read_only)
        for one in found
    )


def _cpus_hold(cpus: float, host: Mapping[str, Any]) -> bool:
    if host.get("NanoCpus"):
        return bool(host["NanoCpus"] == round(cpus * NANO))
    # Podman answers in the older pair of quota and period.
    period = host.get("CpuPeriod") or 0
    return bool(period) and abs(host.get("CpuQuota", 0) / period - cpus) < 0.01
