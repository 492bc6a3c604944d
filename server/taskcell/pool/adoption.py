"""What dead servers of the same deployment left: which task each sandbox belongs to, and which can be adopted."""

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

#: Sandboxes that are adopted at once: each takes a handful of calls to the engine, which has others to answer too.
AT_ONCE = 8
#: States of a container in which its supervisor will never end it.
_STUCK = frozenset({"created", "paused", "removing", "dead"})


class Inheritance:
    """Finds and adopts sandboxes of dead servers.

    Arguments:
        deployment_id: as in the containers' labels.
        instance: this server's own name there.
        profile_of: the authorised profile of that name as it is now; None when there is none.
    """

    def __init__(
        self,
        engine: Engine,
        launcher: Launcher,
        deployment: Deployment,
        profile_of: Callable[[str], AuthorizedProfile | None],
        *,
        deployment_id: str,
        instance: str,
    ) -> None:
        self._engine = engine
        self._launcher = launcher
        self._deployment = deployment
        self._deployment_id = deployment_id
        self._instance = instance
        self._profile_of = profile_of
        self._limiter = anyio.CapacityLimiter(AT_ONCE)

    async def begin(self, *, adopt: bool) -> Sequence[SandboxRecord]:
        """Join the deployment, and take over what dead servers left, so that no other server does.

        Arguments:
            adopt: False leaves it to others.
        """
        return await anyio.to_thread.run_sync(self._begin, adopt)

    def _begin(self, adopt: bool) -> Sequence[SandboxRecord]:
        self._deployment.join(self._instance)
        found: dict[str, SandboxRecord] = {}
        if adopt and self._deployment.is_shared:
            for _, records in self._deployment.bequeathed():
                found.update((record.container, record) for record in records)
                # In our own file before theirs is removed: if this server dies in between, the next one finds them.
                self._deployment.write(tuple(found.values()))
        return tuple(found.values())

    def slots(self, records: Iterable[SandboxRecord], first: TaskKey) -> list[Slot]:
        """A slot for each sandbox that its task can use; those of the task `first` come first.

        Two servers may have served tasks of one name: the task gets the sandbox that was used last.
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
        # Ages stay as they are: the two clocks differ, and their distance does not change.
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

    async def adopt(self, slot: Slot) -> Sandbox | None:
        """Connect to the slot's sandbox; None when it is gone and a call waits for another one.

        Raises SandboxLost: it is gone, and no call waits.
        """
        async with self._limiter:
            sandbox = await self._launcher.adopt(slot)
        if sandbox is not None:
            return sandbox
        slot.inherited, slot.outdated = None, False
        # The next call says so, though none waits now.
        slot.ended = "had ended with the server before this one"
        if not slot.leases:
            raise SandboxLost("The sandbox of an earlier server is gone.")
        return None

    async def clear_up(self, records: Iterable[SandboxRecord], taken: Collection[str]) -> None:
        """Remove what dead servers left and no task can use: containers without a task, volumes that nothing mounts.

        Arguments:
            taken: ids of the containers that are being adopted.
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
            log.info("what earlier servers left was not cleared up", reason=str(error))
