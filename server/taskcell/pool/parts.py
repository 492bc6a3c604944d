"""What a pool works with, made whole at once: each part gets those below it, and none calls back."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import anyio
import anyio.abc

from taskcell.config.settings import Settings
from taskcell.deployment.base import Deployment
from taskcell.egress.egress import Egress
from taskcell.engine.base import Engine
from taskcell.pool.adoption import Inheritance
from taskcell.pool.bounds import Bounds
from taskcell.pool.closing import Closing
from taskcell.pool.executor import Executor
from taskcell.pool.heir import Heir
from taskcell.pool.keeper import Keeper
from taskcell.pool.launcher import Launcher
from taskcell.pool.leftovers import Leftovers
from taskcell.pool.liveness import Liveness
from taskcell.pool.sharing import Sharing
from taskcell.pool.state import Slots
from taskcell.pool.upkeep import Upkeep
from taskcell.pool.workspaces import Profiles, Workspaces


@dataclass(frozen=True, slots=True)
class Parts:
    """The state, and what acts on it."""

    slots: Slots
    workspaces: Workspaces
    keeper: Keeper
    closing: Closing
    heir: Heir
    executor: Executor
    upkeep: Upkeep
    sharing: Sharing

    @classmethod
    def make(
        cls,
        group: anyio.abc.TaskGroup,
        engine: Engine,
        settings: Settings,
        deployment: Deployment,
        *,
        profiles: Profiles,
        for_one_call: bool,
        egress: Egress,
    ) -> Parts:
        """The parts of one pool, under a new name of this server among those of its deployment."""
        name, instance, slots = settings.deployment_id, secrets.token_hex(8), Slots(_bounds(settings, for_one_call))
        workspaces, leftovers = Workspaces(engine, settings, deployment, profiles), Leftovers(engine, name)
        keeper = Keeper(engine, settings, workspaces, slots, deployment, keeps=not for_one_call)
        launcher = Launcher(
            group, engine, settings, deployment, workspaces, leftovers=leftovers, instance=instance, egress=egress
        )
        closing = Closing(
            engine, launcher, workspaces, slots, keeper, leftovers=leftovers, deployment_id=name, instance=instance
        )
        inheritance = Inheritance(
            engine,
            launcher,
            deployment,
            profiles.authorized,
            slots.endings,
            deployment_id=name,
            instance=instance,
            orphan_ttl=settings.pool.orphan_ttl,
        )
        executor = Executor(
            group, slots, keeper, workspaces=workspaces, launcher=launcher, inheritance=inheritance, closing=closing
        )
        liveness, idle_ttl = Liveness(engine, instance, slots, executor), settings.pool.idle_ttl
        upkeep = Upkeep(
            slots, executor, workspaces, deployment, keeper, leftovers=leftovers, liveness=liveness, idle_ttl=idle_ttl
        )
        heir = Heir(slots, workspaces, executor, inheritance, upkeep.own, group=group, adopts=not for_one_call)
        sharing = Sharing(slots, deployment, heir, upkeep, executor, acquire_timeout=settings.pool.acquire_timeout)
        return cls(slots, workspaces, keeper, closing, heir, executor, upkeep, sharing)


async def hold_group(*, task_status: anyio.abc.TaskStatus[anyio.abc.TaskGroup]) -> None:
    """Run a task group until it is cancelled by itself.

    A signal cancels the task that has opened the pool; the channels outlive that, for sandboxes are closed by them.
    """
    with anyio.CancelScope(shield=True):
        async with anyio.create_task_group() as group:
            task_status.started(group)
            await anyio.sleep_forever()


def _bounds(settings: Settings, for_one_call: bool) -> Bounds:
    pool = settings.pool
    return Bounds(
        max_sandboxes=pool.max_sandboxes,
        max_per_principal=pool.max_per_principal,
        max_local=pool.max_local,
        warm=0 if for_one_call else pool.warm,
        persistent=settings.keeps_files,
        is_shared=bool(settings.workspace.folder),
    )
