"""Makes the container of a sandbox, or finds the one that an earlier server left, and connects to it."""

from __future__ import annotations

import secrets
from dataclasses import replace
from functools import partial
from typing import cast

import anyio
import anyio.abc
import structlog

from taskcell.config.settings import Settings
from taskcell.deployment.base import Deployment
from taskcell.deployment.key import token
from taskcell.egress.egress import Egress
from taskcell.egress.presets import PACKAGES
from taskcell.engine.abilities import TransfersApart
from taskcell.engine.base import OWN_TIMEOUT, Container, ContainerSpec, Engine, Standing, Workspace
from taskcell.errors import Denied, ImageMissing, SandboxLost, TaskcellError
from taskcell.model import LOCAL_PRINCIPAL
from taskcell.policy.policy import AuthorizedProfile
from taskcell.pool.leftovers import Leftovers
from taskcell.pool.slot import Slot
from taskcell.pool.taking import Taking, assigned, container_name
from taskcell.pool.workspaces import Workspaces
from taskcell.sandbox import as_asked, sudo
from taskcell.sandbox.as_asked import BOUNDS
from taskcell.sandbox.sandbox import Sandbox
from taskcell.sandbox.setup import run_setup
from taskcell.supervisor.channel import Channel

log = structlog.get_logger(__name__)

#: Seconds to remove a container whose creation failed half-way; inside CLOSE_TIMEOUT when the pool closes meanwhile.
UNDO_TIMEOUT = 2.0
#: Seconds that a started container waits for its server, where `orphan_ttl` is not between them: the least is what a
#: busy engine takes to connect, and in a minute the server has given up long since.
MIN_CLAIM = 10.0
MAX_CLAIM = 60.0


class Launcher:
    """Starts, finds and removes containers.

    Arguments:
        group: runs the channels to their supervisors.
        instance: the server's own name among those of its deployment.
        egress: what sandboxes reach by name.
    """

    def __init__(
        self,
        group: anyio.abc.TaskGroup,
        engine: Engine,
        settings: Settings,
        deployment: Deployment,
        workspaces: Workspaces,
        *,
        leftovers: Leftovers,
        instance: str,
        egress: Egress,
    ) -> None:
        self._group = group
        self._engine = engine
        self._settings = settings
        self._deployment = deployment
        self._workspaces = workspaces
        self._leftovers = leftovers
        self._instance = instance
        self._egress = egress
        self.taking = Taking(engine)

    # --- making --------------------------------------------------------------------------------------------------

    async def create(self, slot: Slot) -> Sandbox:
        """Start a container and connect to it. Raises TaskcellError; nothing is left of the container then."""
        nonce = secrets.token_hex(16)
        container: Container | None = None
        try:
            container = await self._start(slot)
            sandbox = await self._connect(container, slot, nonce)
            sandbox.container = container = await assigned(self._engine, container, slot)
        except BaseException:
            if container is not None:
                with anyio.move_on_after(UNDO_TIMEOUT, shield=True) as bound:
                    await self.remove(container, slot.profile)
                if bound.cancelled_caught:
                    self._leftovers.add_removal(container, f"it took longer than {UNDO_TIMEOUT:g} s")
                self._workspaces.let_go(slot.task, container)
            raise
        slot.nonce = nonce
        return sandbox

    async def _start(self, slot: Slot) -> Container:
        if slot.is_warm:
            return await self._start_container(self._spec(slot, Workspace(self._settings.workspace.size)))
        record = self._workspaces.record(slot.task)
        workspace = await self._workspaces.choose(record, slot)
        container = await self._start_container(self._spec(slot, workspace))
        self._workspaces.hold(record, container, slot.profile, None)
        if workspace.name and container.volume != workspace.name:
            # A restarted engine has removed the task's containers and left their volume.
            self._group.start_soon(self._workspaces.remove, workspace.name)
        return container

    async def _start_container(self, spec: ContainerSpec) -> Container:
        image = spec.profile.image
        await self._leftovers.check(image)
        try:
            return await self._engine.start(spec)
        except (Denied, ImageMissing):
            raise  # the engine was asked for no container, or has removed it
        except BaseException as error:
            self._leftovers.add_start(spec.name, image, error)
            raise

    def _spec(self, slot: Slot, workspace: Workspace) -> ContainerSpec:
        labels = {
            "taskcell": "1",
            "taskcell.deployment": self._settings.deployment_id,
            "taskcell.profile": slot.profile.name,
            "taskcell.instance": self._instance,
        }
        # No other server can take up what its own has not connected to yet.
        claim_within = min(MAX_CLAIM, max(MIN_CLAIM, self._settings.pool.orphan_ttl))
        claim_within += OWN_TIMEOUT if slot.profile.own else 0.0
        shares_files = self._workspaces.are_shared_by(slot.profile)
        principal = LOCAL_PRINCIPAL if slot.is_warm else slot.task.principal
        return ContainerSpec(
            slot.profile,
            container_name(slot),
            workspace,
            labels,
            claim_within,
            shares_files,
            principal,
            frozenset(self._settings.policy.allow_unenforced),
            self._workspaces.siblings,
        )

    async def _connect(self, container: Container, slot: Slot, nonce: str, *, running: bool = False) -> Sandbox:
        """Connect to the container's supervisor, and prepare what commands need or adopt what an earlier server left.

        Arguments:
            running: an earlier server has used the container.
        """
        limits, shell = self._settings.limits, slot.profile.shell
        channel = Channel(token(self._deployment.key, nonce), self._settings.pool.orphan_ttl)
        await self._group.start(self._serve_channel, channel, container)
        sandbox = Sandbox(
            profile=slot.profile,
            container=container,
            channel=channel,
            output_chars=limits.output_chars,
            spool=limits.spool,
            max_processes=limits.max_processes,
        )
        if container.transfers_apart:
            sandbox.apart = partial(cast(TransfersApart, self._engine).apart, container)
        if self._egress.serves(slot.profile):
            await self._give_egress(sandbox, slot)
        if running:
            await sandbox.adopt(shell)
            return sandbox
        if not container.is_child:
            on_disk = self._settings.keeps_files or slot.profile.folder is not None
            files = None if on_disk else self._settings.workspace.size
            policy = self._settings.policy
            bounds = BOUNDS.difference(policy.allow_unenforced) if policy.require_resource_limits else frozenset()
            await as_asked.check(channel, sandbox.spawner, files=files, bounds=bounds)
        if slot.profile.sudo:
            sandbox.sudo_problem = await sudo.set_up(channel, slot.profile, self._settings.sudo_password)
        if slot.profile.kind == "terminal":
            await sandbox.read_login_profile(shell)
        await run_setup(sandbox)
        return sandbox

    async def _give_egress(self, sandbox: Sandbox, slot: Slot) -> None:
        """Give a sandbox what its profile may reach by name. Raises SandboxLost."""
        images = self._engine.images if f"@{PACKAGES}" in slot.profile.egress else None
        labels = None if images is None else await images.image_labels(slot.profile.image)
        found = await self._egress.begin(
            self._group,
            sandbox.channel,
            slot.profile,
            labels or {},
            lambda: slot.task,
            any_port=sandbox.container.is_child,
        )
        sandbox.take_egress(found)

    async def _serve_channel(
        self, channel: Channel, container: Container, *, task_status: anyio.abc.TaskStatus[None]
    ) -> None:
        started = False

        class Started:
            def started(self, value: None = None) -> None:
                nonlocal started
                started = True
                task_status.started()

        async def is_gone() -> bool | None:
            try:
                return await self._engine.standing(container) is Standing.ENDED
            except TaskcellError:  # an engine that is away, or refuses, does not say
                return None

        try:
            await channel.run(lambda: self._engine.connect(container), is_gone, task_status=Started())
        except TaskcellError as error:
            if not started:
                why = await self._engine.why_dead(container)
                raise SandboxLost(f"{error} {why}".strip()) from error
            log.warning("a channel ended", container=container.name, reason=str(error))

    # --- adopting ------------------------------------------------------------------------------------------------

    async def adopt(self, slot: Slot) -> Sandbox | None:
        """Connect to the sandbox that an earlier server left; None when it is gone, or is not what its record says."""
        inherited = slot.inherited
        assert inherited is not None
        container: Container | None = None
        try:
            container = await self._engine.find(inherited.container, slot.profile)
            if container is None:
                return None
            container = replace(container, is_owner=inherited.is_owner)
            sandbox = await self._connect(container, slot, inherited.nonce, running=True)
        except TaskcellError as error:
            log.warning("a sandbox of an earlier server was not adopted", name=inherited.name, reason=str(error))
            if container is not None:
                # Its task gets another one. A paused container would never end by itself.
                self._group.start_soon(self.remove, container, slot.profile)
            return None
        slot.nonce = inherited.nonce
        self._workspaces.count_commands(slot.task, sandbox.processes.highest)
        return sandbox

    # --- the end -------------------------------------------------------------------------------------------------

    async def remove(self, container: Container, profile: AuthorizedProfile) -> bool:
        """Remove a container, or only kill it if its profile says so.

        Returns False when that fails; the engine is then asked again to remove it.
        """
        try:
            await self._engine.remove(container, keep=not profile.remove)
        except TaskcellError as error:
            if profile.remove:
                self._leftovers.add_removal(container, str(error))
            return False
        return True
