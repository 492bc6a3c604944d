"""What dead servers of the same deployment left: whose it is, and what of it can be taken up."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence

import anyio
import anyio.to_thread
import structlog

from taskcell.deployment.records import Deployment, SandboxRecord
from taskcell.engine.base import Engine
from taskcell.errors import SandboxLost, TaskcellError
from taskcell.model import TaskKey
from taskcell.policy.policy import AuthorizedProfile
from taskcell.pool.launcher import Launcher
from taskcell.pool.slot import Slot, SlotKey
from taskcell.sandbox.sandbox import Sandbox

log = structlog.get_logger(__name__)

#: Sandboxes that are taken up at once: each is a handful of calls to the engine, which others want too.
AT_ONCE = 8
#: States of a container in which no supervisor will ever end it.
_STUCK = frozenset({"created", "paused", "removing", "dead"})


class Inheritance:
    """Finds and takes up sandboxes of dead servers.

    Arguments:
        deployment_id: as in the containers' labels; `instance` is this server's own name there.
        profile_of: the authorised profile of that name as it is now; None where there is none.
    """

    def __init__(
        self,
        engine: Engine,
        deployment: Deployment,
        deployment_id: str,
        instance: str,
        profile_of: Callable[[str], AuthorizedProfile | None],
    ) -> None:
        self._engine = engine
        self._deployment = deployment
        self._deployment_id = deployment_id
        self._instance = instance
        self._profile_of = profile_of
        self._limiter = anyio.CapacityLimiter(AT_ONCE)

    async def begin(self, *, adopt: bool) -> Sequence[SandboxRecord]:
        """Join the deployment, and take over what dead servers left: from now on nobody else does."""
        return await anyio.to_thread.run_sync(self._begin, adopt)

    def _begin(self, adopt: bool) -> Sequence[SandboxRecord]:
        self._deployment.join(self._instance)
        found: dict[str, SandboxRecord] = {}
        if adopt and self._deployment.is_shared:
            for _, records in self._deployment.bequeathed():
                found.update((record.container, record) for record in records)
                # In our own file before theirs goes: whoever dies in between leaves them to the next.
                self._deployment.write(tuple(found.values()))
        return tuple(found.values())

    def slots(self, records: Iterable[SandboxRecord], first: TaskKey) -> list[Slot]:
        """A place for each sandbox that can be of use to its task; those of the task that asks come first.

        Two servers may have served tasks of one name: the sandbox that was used last is the task's.
        """
        found: dict[SlotKey, Slot] = {}
        for record in sorted(records, key=lambda record: record.idle_since or float("inf")):
            slot = self._slot(record) if record.task else None
            if slot is not None:
                found[slot.key] = slot
        return sorted(found.values(), key=lambda slot: slot.task != first)

    def _slot(self, record: SandboxRecord) -> Slot | None:
        profile = self._profile_of(record.profile)
        if profile is None:
            return None
        # Ages go on: the two clocks differ, their distance does not.
        shift = time.monotonic() - time.time()
        idle_since = record.idle_since + shift if record.idle_since else time.monotonic()
        return Slot(
            (record.key, record.profile),
            profile,
            created=record.created + shift,
            idle_since=idle_since,
            inherited=record,
            outdated=record.fingerprint != self._deployment.fingerprint(profile.profile),
        )

    async def take_up(self, slot: Slot, launcher: Launcher) -> Sandbox | None:
        """The slot's sandbox, connected to; None where it is gone and a call waits for another.

        Raises SandboxLost: it is gone, and nobody waits.
        """
        async with self._limiter:
            sandbox = await launcher.adopt(slot)
        if sandbox is not None:
            return sandbox
        slot.inherited, slot.outdated = None, False
        # Whoever calls next is told, though nobody waits now.
        slot.ended = "had ended with the server before this one"
        if not slot.leases:
            raise SandboxLost("The sandbox of an earlier server is gone.")
        return None

    async def clear_up(self, records: Iterable[SandboxRecord], taken: Collection[str]) -> None:
        """Remove what dead servers left and nobody can use: containers of no task, volumes that nothing mounts.

        Arguments:
            taken: ids of the containers that are being taken up.
        """
        if not self._deployment.is_shared:
            return
        unused = {record.container for record in records}
        try:
            servers = await anyio.to_thread.run_sync(self._deployment.servers)
            living = {server.instance for server in servers if server.alive} | {self._instance}
            others = (server for server in servers if server.alive and server.instance != self._instance)
            kept = {*taken, *(record.container for server in others for record in server.sandboxes)}
            for found in await self._engine.containers(self._deployment_id):
                is_stuck = found.state in _STUCK and found.labels.get("taskcell.instance") not in living
                if found.id not in kept and (found.id in unused or is_stuck):
                    await self._engine.stop(found.id)
            await self._engine.sweep(self._deployment_id, living)
        except TaskcellError as error:
            log.info("what earlier servers left was not looked through", reason=str(error))
