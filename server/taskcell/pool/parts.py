"""What a pool works with, made whole at once: each part gets those below it, and none calls back."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

import anyio.abc

from taskcell.config.settings import Settings
from taskcell.deployment.records import Deployment
from taskcell.engine.base import Engine
from taskcell.policy.policy import AuthorizedProfile
from taskcell.pool.adoption import Inheritance
from taskcell.pool.bounds import Bounds
from taskcell.pool.closing import Closing
from taskcell.pool.executor import Executor
from taskcell.pool.heir import Heir
from taskcell.pool.launcher import Launcher
from taskcell.pool.leftovers import Leftovers
from taskcell.pool.state import Slots
from taskcell.pool.upkeep import Upkeep
from taskcell.pool.workspaces import Workspaces

ProfileOf = Callable[[str], AuthorizedProfile | None]


@dataclass(frozen=True, slots=True)
class Parts:
    """The state, and what acts on it."""

    slots: Slots
    workspaces: Workspaces
    closing: Closing
    heir: Heir
    executor: Executor
    upkeep: Upkeep

    @classmethod
    def make(
        cls,
        group: anyio.abc.TaskGroup,
        engine: Engine,
        settings: Settings,
        deployment: Deployment,
        *,
        profile_of: ProfileOf,
        for_one_call: bool,
    ) -> Parts:
        """The parts of one pool, under a new name of this server among those of its deployment."""
        name, instance = settings.deployment_id, secrets.token_hex(8)
        slots = Slots(_bounds(settings, for_one_call=for_one_call))
        workspaces = Workspaces(engine, settings, deployment)
        leftovers = Leftovers(engine, name)
        launcher = Launcher(group, engine, settings, deployment, workspaces, leftovers=leftovers, instance=instance)
        closing = Closing(
            engine, launcher, workspaces, slots, leftovers=leftovers, deployment_id=name, instance=instance
        )
        inheritance = Inheritance(
            engine,
            launcher,
            deployment,
            profile_of,
            slots.endings,
            deployment_id=name,
            instance=instance,
            orphan_ttl=settings.pool.orphan_ttl,
        )
        executor = Executor(
            group, slots, workspaces=workspaces, launcher=launcher, inheritance=inheritance, closing=closing
        )
        upkeep = Upkeep(slots, executor, workspaces, deployment, leftovers=leftovers, idle_ttl=settings.pool.idle_ttl)
        heir = Heir(slots, workspaces, executor, inheritance, upkeep.own, group=group, adopts=not for_one_call)
        return cls(slots, workspaces, closing, heir, executor, upkeep)


def _bounds(settings: Settings, *, for_one_call: bool) -> Bounds:
    pool = settings.pool
    return Bounds(
        max_sandboxes=pool.max_sandboxes,
        max_per_principal=pool.max_per_principal,
        warm=0 if for_one_call else pool.warm,
        persistent=settings.keeps_files,
        is_shared=bool(settings.workspace.folder),
    )
