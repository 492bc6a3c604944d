"""How one engine differs from another in what a sandbox needs; asked once, when it is connected to."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from docker import APIClient

from taskcell.text import shown

#: What `docker info` calls the engine's built-in filter of system calls, and none at all: 20.10 and Podman say default,
#: newer ones builtin. Anything else is the path of a filter that the operator has given the engine.
_BUILT_IN = frozenset({"", "default", "builtin", "unconfined"})
_NO_FILTER = "The engine has no seccomp filter: commands can make every system call."
_OPERATORS = (
    "The engine has a seccomp filter of its operator's, {file}, which stays in the place of taskcell's; see that it "
    "refuses AF_VSOCK, AF_ALG and io_uring."
)
_FAR = (
    "Podman reads seccomp filters from files of its own machine, so its own filter stays in the place of taskcell's; "
    "run the server on that machine, by the engine's Unix socket."
)


class FilterUse(Enum):
    """How taskcell's filter of system calls reaches the engine.

    `TEXT`: in the request. `FILE`: as the path of a file that the engine reads. `NONE`: it does not, and
    `Traits.filter_weakness` says why.
    """

    TEXT = "text"
    FILE = "file"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Traits:
    """What an engine is like. The defaults are Docker's on cgroup v2.

    Arguments:
        filter_use: how it takes a filter of system calls.
        filter_weakness: a sentence for the operator where it takes none; else empty.
        maps_users: root in a container is not root outside. Before Linux 5.19 such a root may not write the settings of
            its own IPC namespace, and the container would not start.
        user_base: uid and gid on the engine's machine of root in a container, where `userns-remap` maps them.
        same_kernel: it runs on this machine, and not in a virtual machine of it or on another one.
        mounts_by_options: it mounts a volume without a name by the options of its creation, and other file systems in
            memory by an owner; a volume's `size` is a quota that it tries. Podman does none of that.
        counts_sockets: buffers of sockets count as memory of their container, which cgroup v1 does not do by itself.
        lists_processes: it lists a container's processes as its own machine sees them. Podman runs a `ps` in the
            container instead.
    """

    filter_use: FilterUse = FilterUse.TEXT
    filter_weakness: str = ""
    maps_users: bool = False
    user_base: tuple[int, int] = (0, 0)
    mounts_by_options: bool = True
    counts_sockets: bool = True
    lists_processes: bool = True
    same_kernel: bool = True


def traits_of(client: APIClient, *, is_here: bool) -> Traits:
    """Ask the engine. Raises what docker-py raises.

    Arguments:
        is_here: it is reached by a Unix socket, and so can most likely read this machine's files.
    """
    info, version = client.info(), client.version()
    options = [str(option) for option in info.get("SecurityOptions") or ()]
    use, weakness = _filter_use(options, version, is_here=is_here)
    return Traits(
        filter_use=use,
        filter_weakness=weakness,
        maps_users=any(option.partition(",")[0] in {"name=rootless", "name=userns"} for option in options),
        user_base=_user_base(options, str(info.get("DockerRootDir", ""))),
        mounts_by_options=not _is_podman(version),
        counts_sockets=str(info.get("CgroupVersion")) != "1",
        lists_processes=not _is_podman(version),
        same_kernel=is_here and str(info.get("KernelVersion")) == os.uname().release,
    )


def _user_base(options: Sequence[str], root: str) -> tuple[int, int]:
    """An engine with `userns-remap` names its folder after the uid and gid that it maps root to, as in `100000.100000`.

    The options of a file system in memory are in the numbers of its machine, unlike those of a rootless engine.
    """
    found = re.search(r"/(\d+)\.(\d+)$", root) if any(one.startswith("name=userns") for one in options) else None
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _filter_use(options: Sequence[str], version: Mapping[str, Any], *, is_here: bool) -> tuple[FilterUse, str]:
    filters = [option for option in options if option.startswith("name=seccomp")]
    if not filters:
        return FilterUse.NONE, _NO_FILTER
    file = filters[0].partition("profile=")[2]
    if file not in _BUILT_IN:
        return FilterUse.NONE, _OPERATORS.format(file=shown(file))
    if not _is_podman(version):
        return FilterUse.TEXT, ""
    # Podman up to 5.8 at least takes the filter's text for the name of a file.
    return (FilterUse.FILE, "") if is_here else (FilterUse.NONE, _FAR)


def _is_podman(version: Mapping[str, Any]) -> bool:
    return any(component.get("Name") == "Podman Engine" for component in version.get("Components") or ())
