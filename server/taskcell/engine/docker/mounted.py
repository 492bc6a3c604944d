"""Checks that a container has mounted what the policy looked at: paths may have been exchanged in between.

The supervisor's own program looks, in the container and before any command runs there: that needs no right on the host,
and what it finds is the host's device and inode, unless the engine's kernel is another one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from docker import APIClient

from taskcell.engine.docker.hardening import SUPERVISOR
from taskcell.errors import Denied
from taskcell.host_folder import HostFolder
from taskcell.policy.host_paths import Identity
from taskcell.policy.policy import HostMount
from taskcell.refusal import Rule
from taskcell.text import shown

_REMAPPED = (
    "The engine maps users (userns-remap), so that the owner of {folder} is nobody in a sandbox. The operator can let "
    "sandboxes keep the host's users (extra_args = ['--userns=host'] and policy.allow_host_namespaces = ['user']), or "
    "use another engine."
)
_ROOTLESS = (
    "The engine is rootless, so that the owner of {folder} is root in a sandbox, and no command runs as root. The "
    'operator can set workspace = "ro", or use the engine of the whole machine.'
)


@dataclass(frozen=True, slots=True)
class Seen:
    """What stands at a path of a container: what it is on the host, and who owns it in the container."""

    identity: Identity
    owner: tuple[int, int]


def check_mounted(
    client: APIClient, container_id: str, mounts: Sequence[HostMount], folder: HostFolder | None, *, same_kernel: bool
) -> None:
    """Compare each mount with what was allowed. Raises Denied when one differs, or cannot be compared; APIError.

    Arguments:
        container_id: of a container that has started and runs no command yet.
        folder: what the commands are to write to as its owner; None where that is none of the mounts.
        same_kernel: the engine runs on this machine, and not in a virtual machine of it.
    """
    if not mounts:
        return
    if not same_kernel:
        reason = (
            "The engine runs in a virtual machine, so that the server cannot tell whether the host folder that was "
            "mounted is the one that was checked. The operator can allow that (policy.mounts_in_vm = true), or must "
            "remove the folder from the configuration."
        )
        raise Denied(Rule.MOUNTS.value, reason)
    found = seen_at(client, container_id, [mount.target for mount in mounts])
    for mount, seen in zip(mounts, found, strict=True):
        if seen is None or seen.identity != mount.path.identity:
            reason = (
                f"What was mounted at {shown(mount.target)} is not the host path {shown(mount.path.asked)} that was "
                "checked: it was exchanged in between, or the image has a link there. The sandbox was removed."
            )
            raise Denied(Rule.MOUNTS.value, reason)
        if folder is not None and mount.path.asked == folder.path and seen.owner != folder.owner:
            reason = _REMAPPED if seen.owner[0] else _ROOTLESS
            raise Denied(Rule.FOLDER.value, reason.format(folder=shown(folder.path)))


def seen_at(client: APIClient, container_id: str, paths: Sequence[str]) -> list[Seen | None]:
    """What the paths are in the container, links not followed; None for one that cannot be seen. Raises APIError."""
    made = client.exec_create(container_id, [SUPERVISOR, "look", *paths], stdin=False, tty=False, user="0:0")
    said = client.exec_start(made["Id"]).decode("ascii", "replace").splitlines()
    found = [_seen(line) for line in said]
    return found if len(found) == len(paths) else [None] * len(paths)


def _seen(line: str) -> Seen | None:
    try:
        device, inode, owner = line.split()
        major, minor = map(int, device.split(":"))
        uid, gid = map(int, owner.split(":"))
        return Seen((os.makedev(major, minor), int(inode)), (uid, gid))
    except (ValueError, OverflowError):
        return None
