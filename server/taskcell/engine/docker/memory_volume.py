"""The file systems in memory of a sandbox: the volume that a task's files are in, and those of its profile. Pure."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping
from typing import Any

from taskcell.engine.docker import image_volumes
from taskcell.model import WORKSPACE, Profile
from taskcell.mounts import Tmpfs
from taskcell.units import SHM

#: The group that a task's files have where its profiles run as several users. It is among the last that programs of a
#: system give away by themselves (Debian's policy), and in the range that `userns-remap` maps.
SHARED_GROUP = 59_999
#: Of the workspace: others read it. Where users share it, its group writes, and new files get that group.
OWN_MODE, SHARED_MODE = 0o755, 0o2775
_OTHERS_WRITE = 0o002
#: The supervisor has its socket below it.
_ABOVE_SOCKET = "/run"


def workspace_options(
    size: int, owner: tuple[int, int], mode: int = OWN_MODE, *, in_pages: bool = False
) -> dict[str, str]:
    """Of a volume in memory of `size` bytes that belongs to a user and a group of the engine's machine.

    Arguments:
        in_pages: say the size in pages. Podman takes `size` for a quota on its disk, and refuses where that has none.
    """
    uid, gid = owner
    bound = f"nr_blocks={size // os.sysconf('SC_PAGE_SIZE')}" if in_pages else f"size={size}"
    return {"type": "tmpfs", "device": "tmpfs", "o": f"{bound},uid={uid},gid={gid},mode={mode:04o},nosuid,nodev"}


def volumes_in_memory(profile: Profile, image: Mapping[str, Any]) -> list[Tmpfs]:
    """What stands for the volumes that the image declares, where the profile mounts nothing else.

    Arguments:
        image: the engine's inspection of the profile's image.
    """
    declared = image_volumes.declared(image)
    size = image_volumes.size_of_each(profile, len(declared))
    own = {mount.target for mount in profile.mounts} | {mount.target for mount in profile.tmpfs}
    return [Tmpfs(target, size, mode=0o755) for target in declared if target != WORKSPACE and target not in own]


def own_in_memory(profile: Profile) -> list[Tmpfs]:
    """The profile's own, but for shared memory and what a mount lies over."""
    taken = {SHM, WORKSPACE, *(mount.target for mount in profile.mounts)}
    return [mount for mount in profile.tmpfs if mount.target not in taken]


def is_roots(mount: Tmpfs) -> bool:
    """Whether it belongs to root: everybody may write there anyway, or it is above the supervisor's own folder.

    Any other belongs to whom commands run as: an engine gives it to root.
    """
    return bool(mount.mode & _OTHERS_WRITE) or posixpath.normpath(mount.target) == _ABOVE_SOCKET


def with_mode(mount: Tmpfs) -> str:
    """As the supervisor reads it."""
    return f"{mount.mode:o}:{mount.target}"
