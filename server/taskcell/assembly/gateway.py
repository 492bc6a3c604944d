"""From settings and tools to a running gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import anyio.to_thread

from taskcell.assembly import stack
from taskcell.assembly.invocation import Invocation
from taskcell.assembly.stack import Loaded
from taskcell.audit.log import AuditLog
from taskcell.config.settings import Settings
from taskcell.deployment.base import Deployment
from taskcell.deployment.folder import FolderDeployment
from taskcell.deployment.opened import OpenedTasks
from taskcell.deployment.state_folder import StateFolder
from taskcell.egress.dial import Resolve
from taskcell.egress.egress import Egress
from taskcell.engine import kinds
from taskcell.engine.base import Engine
from taskcell.environment import Environment
from taskcell.errors import Denied, TaskcellError
from taskcell.gateway.background import Background
from taskcell.gateway.gateway import Gateway
from taskcell.gateway.removal import EXPIRED, remove_task
from taskcell.model import TaskKey
from taskcell.policy.policy import AuthorizedProfile, Policy
from taskcell.pool.copies import Copies
from taskcell.pool.opened import open_pool
from taskcell.tools.catalog import profiles
from taskcell.tools.environments import Environments, profile_in
from taskcell.tools.tool import Tool


@asynccontextmanager
async def configured_gateway(
    run: Invocation, loaded: Loaded, *, for_one_call: bool = False, has_peers: bool = False
) -> AsyncIterator[Gateway]:
    """A gateway over the configured engine; leaving closes every sandbox.

    Arguments:
        for_one_call: as in `open_gateway`.
        has_peers: other servers of the deployment reach this one at `http.peer_url`, if it has one.

    Raises:
        ConfigError: there is no engine of the configured kind, or no folder for the audit log can be made.
        Denied: the policy refuses the folder of persistent workspaces.
    """
    hands_over = kinds.kind_of(loaded.settings.engine).outlives_server
    state = stack.state_folder(run, loaded.settings) if hands_over else None
    audit = stack.opened_audit(run, loaded.settings)
    async with (
        stack.opened_engine(run, loaded.settings) as engine,
        open_gateway(
            *(loaded.settings, loaded.tools, engine, state),
            for_one_call=for_one_call,
            audit=audit,
            deployment=stack.cluster_of(run, loaded.settings) if has_peers else None,
        ) as opened,
    ):
        yield opened


class _CurrentProfiles:
    """The profiles of a gateway's tools, which change with the manifests, and of what tasks can be opened with.

    Arguments:
        tools, environments: of the gateway.
    """

    def __init__(
        self,
        policy: Policy,
        settings: Settings,
        tools: Callable[[], Mapping[str, Tool]],
        environments: Callable[[], Environments],
    ) -> None:
        self._policy = policy
        self._tools = tools
        self._environments = environments
        self._users_of_environments = frozenset(_users_of_environments(settings))
        self._task_users = frozenset(settings.policy.task_users)

    def authorized(self, name: str, task: TaskKey) -> AuthorizedProfile | None:
        profile = profiles(self._tools()).get(name) or self._environments().profile_of(name, task)
        try:
            return None if profile is None else self._policy.authorize_profile(profile)
        except Denied:
            return None

    def siblings(self) -> Sequence[AuthorizedProfile]:
        found = []
        for profile in profiles(self._tools()).values():
            with suppress(Denied):
                found.append(self._policy.authorize_profile(profile))
        return found

    def users(self) -> Collection[str]:
        own = {profile.user for profile in profiles(self._tools()).values() if not profile.is_reader}
        return own | self._users_of_environments | self._task_users


def _users_of_environments(settings: Settings) -> Iterator[str]:
    for name in settings.environments:
        with suppress(TaskcellError):  # one that cannot be opened
            yield profile_in(settings, Environment(name)).user


@asynccontextmanager
async def open_gateway(
    settings: Settings,
    tools: Mapping[str, Tool],
    engine: Engine,
    state: Path | None = None,
    *,
    for_one_call: bool = False,
    audit: AuditLog | None = None,
    resolve: Resolve | None = None,
    deployment: Deployment | None = None,
) -> AsyncIterator[Gateway]:
    """A gateway with its pool; leaving closes every sandbox, shielded and bounded.

    Arguments:
        state: the deployment's folder; None when servers are to know nothing about each other.
        for_one_call: make nothing beforehand, leave nothing behind, and leave alone what other servers left.
        audit: gets a line for each decision and each end; None writes none.
        resolve: finds the addresses of the names that sandboxes want to reach; None asks the system.
        deployment: what servers know of each other; None keeps it in `state`.

    Raises:
        Denied: the policy refuses the host folder of the workspaces.
    """
    policy = stack.policy_of(settings, state, audit.path if audit is not None else None)
    await anyio.to_thread.run_sync(stack.authorize_folders, policy, settings)

    deployment = deployment or FolderDeployment(StateFolder(state))
    egress = Egress(settings.egress, audit, resolve, asks=settings.policy.ask_egress)
    now = _CurrentProfiles(policy, settings, lambda: gateway.tools, lambda: environments)
    async with (
        open_pool(engine, settings, deployment, now, for_one_call=for_one_call, egress=egress) as pool,
        Background() as background,
    ):
        environments = Environments(
            settings, pool, OpenedTasks(deployment.state, deployment.opened, is_persistent=settings.keeps_files)
        )
        gateway = Gateway(
            *(tools, policy, pool, engine),
            background=background,
            environments=environments,
            copies=Copies(pool, engine, settings, environments.passed_on),
            idle_ttl=settings.pool.idle_ttl,
            output_chars=settings.limits.output_chars,
            structured=settings.tools.structured,
            selection=settings.tools,
            audit=audit,
            egress=egress,
        )
        if not for_one_call:
            pool.group.start_soon(gateway.lifetimes.run, partial(remove_task, gateway, purge=False, why=EXPIRED))
        yield gateway
