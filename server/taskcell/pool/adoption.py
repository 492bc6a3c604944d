"""What dead servers of the same deployment left: which task each sandbox belongs to, and which can be adopted."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import anyio
import anyio.abc
import structlog

from taskcell.deployment.base import Deployment
from taskcell.deployment.key import fingerprint
from taskcell.deployment.records import NoteRecord, SandboxRecord
from taskcell.engine.abilities import MarksOwners
from taskcell.engine.base import Engine
from taskcell.errors import SandboxLost, TaskcellError
from taskcell.model import TaskKey
from taskcell.policy.policy import AuthorizedProfile
from taskcell.pool.ending_notes import Endings
from taskcell.pool.launcher import Launcher
from taskcell.pool.siblings import Share
from taskcell.pool.slot import Slot, SlotKey
from taskcell.sandbox.sandbox import Sandbox

log = structlog.get_logger(__name__)

#: Sandboxes that are adopted at once: each takes a handful of calls to the engine, which has others to answer too.
AT_ONCE = 8
#: What a task's next answer says of another server's sandbox of it: its files are in a task beside it, lost with it, or
#: on disk and so the same.
BESIDE = (
    "Another server had this task too and has ended: the files that it had, and what still runs there, are in the task "
    "{!r} now."
)
LOST = "Another server had this task too and has ended: the files that it had are lost, for {}."
CLOSED = "Another server had this task too and has ended: what it ran was killed; the files are the same."
#: States of a container in which its supervisor will never end it.
_STUCK = frozenset({"created", "paused", "removing", "dead"})


@dataclass(frozen=True, slots=True)
class Left:
    """What dead servers left, and what living ones have taken over from others.

    Arguments:
        sandboxes: everything that this server is to adopt or remove.
        notes: what no answer has said yet.
        elsewhere: tasks whose sandboxes another living server has adopted.
    """

    sandboxes: tuple[SandboxRecord, ...] = ()
    notes: tuple[NoteRecord, ...] = ()
    elsewhere: frozenset[TaskKey] = frozenset()


class Inheritance:
    """Finds and adopts sandboxes of dead servers.

    Arguments:
        endings: takes what the tasks' next answers have to say about it.
        deployment_id: as in the containers' labels.
        instance: this server's own name there.
        profile_of: the authorised profile of that name and task as it is now; None when there is none.
        orphan_ttl: seconds that a dead server's sandboxes live.
    """

    def __init__(
        self,
        engine: Engine,
        launcher: Launcher,
        deployment: Deployment,
        profile_of: Callable[[str, TaskKey], AuthorizedProfile | None],
        endings: Endings,
        *,
        deployment_id: str,
        instance: str,
        orphan_ttl: float,
    ) -> None:
        self._engine = engine
        self._launcher = launcher
        self._deployment = deployment
        self._deployment_id = deployment_id
        self._instance = instance
        self._profile_of = profile_of
        self._endings = endings
        self._patience = orphan_ttl * deployment.left_alone
        self._died: dict[str, float] = {}
        self._limiter = anyio.CapacityLimiter(AT_ONCE)

    # --- taking over ---------------------------------------------------------------------------------------------

    async def begin(self, group: anyio.abc.TaskGroup, *, adopt: bool) -> Left:
        """Join the deployment, and take over what dead servers left, so that no other server does.

        Arguments:
            group: runs what has others see that this server lives.
            adopt: False leaves it to others.
        """
        await self._deployment.join(self._instance)
        group.start_soon(self._deployment.run)
        if self._deployment.marks_owners:
            await cast(MarksOwners, self._engine).own_only(self._instance)
        return await self._take((), (), None) if adopt and self._deployment.is_shared else Left()

    async def take_later(self, own: Sequence[SandboxRecord], notes: Sequence[NoteRecord]) -> Left:
        """Take over what servers left that died while this one ran, and in whose place none was started in time.

        Arguments:
            own, notes: what this server has, which must stay in its file.
        """
        if not self._deployment.is_shared:
            return Left()
        now = time.monotonic()
        self._died = {instance: self._died.get(instance, now) for instance in await self._deployment.dead()}
        chosen = [instance for instance, at in self._died.items() if now - at >= self._patience]
        return await self._take(own, notes, chosen)

    async def take_from(self, instance: str, own: Sequence[SandboxRecord], notes: Sequence[NoteRecord]) -> Left:
        """Take over at once what one server left, for a call wants a task that it had. Arguments as in `take_later`."""
        return await self._take(own, notes, [instance])

    async def _take(
        self, own: Sequence[SandboxRecord], notes: Sequence[NoteRecord], chosen: Collection[str] | None
    ) -> Left:
        found: dict[str, SandboxRecord] = {}
        told: list[NoteRecord] = []
        async for server in self._deployment.bequeathed(chosen):
            found.update((record.container, record) for record in server.sandboxes)
            told += server.notes
            # In our own file before theirs is removed: if this server dies in between, the next one finds them.
            await self._deployment.write([*own, *found.values()], [*notes, *told])
        return Left(tuple(found.values()), tuple(told), await self._deployment.elsewhere())

    # --- who gets what -------------------------------------------------------------------------------------------

    def slots(self, shares: Iterable[Share]) -> list[Slot]:
        """A slot for each sandbox that its task can use. What is of no use is told to the task's next answer."""
        found: dict[SlotKey, Slot] = {}
        for share in shares:
            slots = [slot for record in share.records if (slot := self._slot(record, share.had)) is not None]
            # The records begin with the one that was used last.
            found.update((slot.key, slot) for slot in reversed(slots if share.task is not None else []))
            in_memory = share.records[0].is_in_memory
            if in_memory and not slots:
                self._endings.tell(share.had, LOST.format("the sandbox's profile is not allowed any more"))
            elif share.task is None and any(record.processes for record in share.records):
                self._endings.tell(share.had, CLOSED)
            elif share.task is not None and share.task != share.had:
                # Now, not once they are adopted: whatever becomes of this server, the next one knows it.
                self._endings.tell(share.had, BESIDE.format(share.task.task))
        return list(found.values())

    def _slot(self, record: SandboxRecord, had: TaskKey) -> Slot | None:
        profile = self._profile_of(record.profile, record.key)
        if profile is None:
            return None
        # Ages stay as they are: the two clocks differ, and their distance does not change.
        shift = time.monotonic() - time.time()
        is_known = record.idle_since and not self._deployment.marks_owners  # clocks of two machines may be hours apart
        idle_since = record.idle_since + shift if is_known else time.monotonic()
        return Slot(
            (record.key, record.profile),
            profile,
            created=record.created + shift,
            idle_since=idle_since,
            inherited=record,
            had=had,
            outdated=record.fingerprint != fingerprint(self._deployment.key, profile),
        )

    async def adopt(self, slot: Slot) -> Sandbox | None:
        """Connect to the slot's sandbox; None when it is gone and a call waits for another one.

        Raises SandboxLost: it is gone, and no call waits.
        """
        async with self._limiter:
            sandbox = await self._launcher.adopt(slot)
        if sandbox is not None:
            return sandbox
        slot.inherited, slot.had, slot.outdated = None, None, False
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
            servers = await self._deployment.servers()
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
