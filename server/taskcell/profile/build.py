"""Make profiles of checked settings and skills: everything that shapes a container, not yet authorised."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Literal

from taskcell.config.container_table import ContainerTable, default_tmpfs
from taskcell.config.expansion import Expanded
from taskcell.config.settings import Settings
from taskcell.host_folder import HostFolder
from taskcell.model import DEFAULT_USER, Profile, Reuse
from taskcell.profile import extra_args
from taskcell.refusal import Refusal, Rule
from taskcell.skills.manifest import Skill
from taskcell.units import format_size

#: The profile's fields that a table may set too, each with its key.
_KEYS = {
    "memory": "memory",
    "cpus": "cpus",
    "pids": "pids",
    "network": "network",
    "user": "user",
    "working_dir": "working_dir",
    "gpus": "gpus",
    "platform": "platform",
    "remove": "rm",
    "read_only": "read_only",
    "entrypoint": "entrypoint",
}
#: Where programs keep what they can make again, so that it does not come to lie in a person's folder.
_CACHE = ("XDG_CACHE_HOME", "/tmp/.cache")  # noqa: S108 - a path in the container


def terminal_profile(settings: Settings) -> Profile:
    """Return the terminal's profile in the settings' environment. Raises ConfigError: a variable is not set."""
    expanded = settings.terminal_container
    # Empty, not None: the terminal's argv is whole, and the image's own entrypoint has no part in it.
    name, table = settings.environment.profile, settings.terminal
    profile = _profile(name=name, kind="terminal", table=table, expanded=expanded, entrypoint=(), settings=settings)
    timeout = settings.limits.timeout if table.timeout is None else table.timeout
    profile = replace(profile, shell=table.shell, setup=table.setup, setup_timeout=timeout)
    return _with_room_for_files(profile, settings) if settings.terminal.extra_args else profile


def skill_profile(skill: Skill, settings: Settings) -> Profile:
    """Return the profile of a skill's tools. A skill that names no entrypoint has the image's own."""
    expanded = Expanded(skill.image, skill.environment, skill.mounts, skill.extra_args, skill.secrets)
    return _profile(
        name=skill.name,
        kind="skill",
        table=skill.docker,
        expanded=expanded,
        entrypoint=skill.docker.entrypoint,
        settings=settings,
    )


def _profile(
    *,
    name: str,
    kind: Literal["terminal", "skill"],
    table: ContainerTable,
    expanded: Expanded,
    entrypoint: tuple[str, ...] | None,
    settings: Settings,
) -> Profile:
    folder = host_folder(settings)
    profile = Profile(
        *(name, expanded.image, kind, entrypoint),
        command=table.command,
        environment=expanded.environment if folder is None else (_CACHE, *expanded.environment),
        working_dir=table.working_dir or None,
        user=table.user or _owner(folder) or default_user(settings, os.getuid(), os.getgid()),
        memory=table.memory,
        cpus=table.cpus,
        pids=table.pids,
        network=table.network,
        egress=table.egress,
        read_only=_is_read_only(table),
        tmpfs=default_tmpfs(table.memory, table.shm_size),
        mounts=expanded.mounts,
        cap_add=table.cap_add,
        gpus=table.gpus,
        platform=table.platform,
        runtime=settings.engine.runtime,
        sudo=table.sudo,
        on_host_folder=folder is not None or (settings.workspace_root is not None and settings.workspace.persistent),
        folder=folder,
        is_reader=table.workspace == "ro",
        remove=table.rm,
        reuse=Reuse(table.reuse),
        disk=table.disk,
        own=table.own,
        secrets=expanded.secrets,
    )
    keys = {name: key for name, key in _KEYS.items() if key in table.model_fields_set}
    return extra_args.apply(profile, expanded.extra_args, keys)


def _is_read_only(table: ContainerTable) -> bool:
    """sudo and `own` need a root file system that can be written; the policy refuses who asks for both."""
    return table.read_only and not ((table.sudo or table.own) and "read_only" not in table.model_fields_set)


def host_folder(settings: Settings) -> HostFolder | None:
    """Look at the folder that is the workspace of every task; None where tasks have their own. Blocking."""
    path = settings.workspace_folder
    if path is None:
        return None
    try:
        found = path.stat()
    except OSError:
        return HostFolder(str(path), None)
    return HostFolder(str(path), (found.st_uid, found.st_gid))


def default_user(settings: Settings, uid: int, gid: int) -> str:
    """Return the user that commands run as where a profile names none.

    Whoever runs the server must be able to use files in a folder of the host, so commands run with that user's number.
    A server that is root gives the folder to the sandbox's own user instead, because root may use it in any case.

    Arguments:
        uid, gid: the user and the group that the server runs as.
    """
    if settings.workspace.persistent and settings.workspace.root and uid != 0:
        return f"{uid}:{gid}"
    return DEFAULT_USER


def _owner(folder: HostFolder | None) -> str:
    """Return who owns the folder that is the workspace of every task; empty where that is nobody who runs commands."""
    owner = (0, 0) if folder is None or folder.owner is None else folder.owner
    return "{}:{}".format(*owner) if owner[0] else ""


def _with_room_for_files(profile: Profile, settings: Settings) -> Profile:
    """Hold the options in extra_args to the bound that the configuration sets for terminal.memory."""
    total = sum(tmpfs.size for tmpfs in profile.tmpfs)
    total += 0 if settings.keeps_files else settings.workspace.size
    if profile.memory is None or total < profile.memory:
        return profile
    reason = (
        f"With extra_args, the file systems in memory and the workspace may hold {format_size(total)}, and the memory "
        f"limit is {format_size(profile.memory)}; raise --memory or lower workspace.size."
    )
    return replace(profile, refused=(*profile.refused, Refusal(Rule.TMPFS, reason)))
