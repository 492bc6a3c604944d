"""From checked settings and skills to profiles: everything that shapes a container, not yet authorised."""

from __future__ import annotations

from typing import Literal

from taskcell.container import ContainerTable, Expanded, default_tmpfs
from taskcell.manifest import Skill
from taskcell.model import DEFAULT_USER, Profile, Reuse
from taskcell.settings import Settings

TERMINAL = "terminal"


def terminal_profile(settings: Settings) -> Profile:
    """The profile of the tool `terminal`. Raises ConfigError when its texts cannot be expanded."""
    expanded = settings.terminal_container
    # Empty, not None: the terminal's argv is whole, and the image's own entrypoint has no part in it.
    return _profile(
        name=TERMINAL, kind="terminal", table=settings.terminal, expanded=expanded, entrypoint=(), settings=settings
    )


def skill_profile(skill: Skill, settings: Settings) -> Profile:
    """The profile of a skill's tool. A skill that names no entrypoint has the image's own."""
    expanded = Expanded(skill.image, skill.environment, skill.mounts)
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
    return Profile(
        name=name,
        image=expanded.image,
        kind=kind,
        entrypoint=entrypoint,
        command=table.command,
        environment=expanded.environment,
        working_dir=table.working_dir or None,
        user=table.user or DEFAULT_USER,
        memory=table.memory,
        cpus=table.cpus,
        pids=table.pids,
        network=table.network,
        read_only=table.read_only,
        tmpfs=default_tmpfs(table.memory),
        mounts=expanded.mounts,
        cap_add=table.cap_add,
        gpus=table.gpus,
        platform=table.platform,
        runtime=settings.engine.runtime,
        sudo=table.sudo,
        remove=table.rm,
        reuse=Reuse(table.reuse),
        extra_args=table.extra_args,
    )
