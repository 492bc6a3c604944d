"""A deployment on a cluster, as one of its servers sees it."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import structlog
from anyio.abc import TaskGroup

from taskcell.deployment.base import Peer
from taskcell.deployment.cluster.certificate import make_certificate
from taskcell.deployment.cluster.members import RENEW_EVERY, TERM, UNSAID, Members
from taskcell.deployment.cluster.objects import Objects
from taskcell.deployment.cluster.owned_pods import OwnedPods, notes_in, records_of
from taskcell.deployment.cluster.shared_key import shared_key
from taskcell.deployment.cluster.store import SharedStore
from taskcell.deployment.cluster.task_leases import TaskLeases
from taskcell.deployment.cluster.written_records import WrittenRecords
from taskcell.deployment.opened import Opening
from taskcell.deployment.records import NoteRecord, SandboxRecord, ServerRecord
from taskcell.deployment.state_folder import StateFolder
from taskcell.engine.kubernetes.api import Api
from taskcell.engine.kubernetes.rights import SHARING, missing_rights
from taskcell.engine.kubernetes.status import owner_of
from taskcell.errors import EngineError, TaskcellError
from taskcell.model import TaskKey

log = structlog.get_logger(__name__)

#: Seconds for one renewal: two attempts of that length fit into a Lease's term.
RENEW_TIMEOUT = 4.0
#: Seconds between two looks at what is still to be written, and how many of them there are between two writings of what
#: only says how busy sandboxes are. Seconds for one: what an API server does not take in time, it gets at the next.
WRITE_EVERY, BUSY_EVERY, ROUND_TIMEOUT = 2.0, 5, 10.0
#: Looks at a dead server, each RENEW_EVERY, after which its Lease goes: every other server has seen it by then.
LOOKS = 5
#: Seconds at the end of a server to give up what it has; it has ten in all.
LEAVING_TIMEOUT = 3.0

_UNTOLD = "The cluster could not be told of this server's sandboxes."
_LACKING = (
    "With http.peer_url the server's account must be allowed more, and may not {} in the namespace {}; docs/engines.md "
    "has all that it needs."
)


class ClusterDeployment:
    """Servers by Leases, sandboxes by annotations of their pods, tasks by Leases, the key in a Secret.

    Arguments:
        name: of the deployment.
        url: where the others reach this server.
        folder: of this machine alone, for the local door. None: there is none.
        store: a folder that all servers reach, for kept files and snapshots. None: nothing is kept.
        clock: seconds of a clock that only goes forward.
    """

    left_alone = 0.0
    marks_owners = True

    def __init__(
        self,
        api: Api,
        name: str,
        url: str,
        clock: Callable[[], float] = time.monotonic,
        *,
        folder: Path | None = None,
        store: Path | None = None,
    ) -> None:
        #: What servers know of each other is in no folder.
        self.state = StateFolder(None)
        self._own = StateFolder(folder)
        self.key = b""
        self.instance = ""
        self.claims: TaskLeases | None = None
        self.opened: dict[TaskKey, Opening] = {}
        self._objects = Objects(api, name)
        own = make_certificate(str(urlsplit(url).hostname)) if url.startswith("https:") else None
        self.tls = None if own is None else own.tls
        self.members = Members(self._objects, url, clock, certificate="" if own is None else own.pem)
        self.archives = SharedStore(store, self.members, self._has)
        self._api = api
        self._running: TaskGroup | None = None
        #: No other server can have taken something of this one's that this one does not know of.
        self._is_sure = True
        self._notes: Sequence[NoteRecord] = ()
        self._heard: set[str] = set()
        self._looks: dict[str, int] = {}

    # --- this server ---------------------------------------------------------------------------------------------

    async def join(self, instance: str) -> None:
        """Raises EngineUnavailable, EngineError: the cluster cannot be asked now, or refuses; then ask again."""
        if lacking := await self.lacking():
            raise EngineError(lacking)
        self.key = await shared_key(self._objects)
        await self.members.enter(instance)
        self._pods = OwnedPods(self._objects, instance)
        self.records = WrittenRecords(self._pods)
        self.instance = instance
        await anyio.to_thread.run_sync(self.archives.join)
        await anyio.to_thread.run_sync(self._own.join, instance)
        self.claims = TaskLeases(self._objects, self.members, self.opened)

    async def lacking(self) -> str:
        """What the server's account must be allowed and is not; empty where nothing is lacking. Raises as `join`."""
        rights = await missing_rights(self._api, SHARING, secret=self._objects.name("key"))
        return _LACKING.format(", ".join(rights), self._api.cluster.namespace) if rights else ""

    @property
    def door(self) -> Path | None:
        return self._own.door

    @property
    def is_shared(self) -> bool:
        return self.claims is not None

    def _has(self, task: TaskKey) -> bool:
        return self.claims is not None and self.is_current and task in self.claims.own

    @property
    def is_current(self) -> bool:
        return self._is_sure and not (self.members.has_lapsed or self.members.has_ended)

    async def run(self) -> None:
        async with anyio.create_task_group() as self._running:
            self._running.start_soon(self._write_again)  # a Lease must not wait for what is written to many pods
            while True:
                await anyio.sleep(RENEW_EVERY)
                try:
                    with anyio.fail_after(RENEW_TIMEOUT):
                        await self.renew()
                except TimeoutError:
                    log.warning("This server's Lease could not be renewed in time.", seconds=RENEW_TIMEOUT)
                except TaskcellError as error:
                    log.warning("This server's Lease could not be renewed.", reason=str(error))

    async def _write_again(self) -> None:
        """Write what could not be written when it changed, and now and then how busy sandboxes are."""
        turns = 0
        while True:
            await anyio.sleep(WRITE_EVERY)
            turns += 1
            if self.claims is None or self.members.has_ended:
                continue
            try:
                with anyio.fail_after(ROUND_TIMEOUT):
                    await self.claims.note_opened()
                    await self.records.flush(everything=False)  # first, for an heir needs it
                    if turns % BUSY_EVERY == 0:
                        await self.records.flush(everything=True)
            except TimeoutError:
                log.warning(_UNTOLD, reason=f"It did not take everything in {ROUND_TIMEOUT:g} s.")
            except TaskcellError as error:
                log.warning(_UNTOLD, reason=str(error))

    async def renew(self) -> None:
        """Renew this server's Lease; find out what it has lost if that is too late. Raises TaskcellError."""
        self._is_sure &= await self.members.renew()
        if self.members.has_ended:
            await self.members.look()
            return
        if not self._is_sure and self.claims is not None:
            lost = await self.claims.check()
            self._is_sure = True
            log.warning(f"This server was away for more than {TERM:g} s; others have its tasks.", tasks=len(lost))

    async def write(self, sandboxes: Sequence[SandboxRecord], notes: Sequence[NoteRecord] = ()) -> None:
        if self.claims is None:
            return
        self.records.want(sandboxes)
        try:
            await self.claims.note_opened()
            await self.records.flush(everything=False)
            if list(notes) != list(self._notes):
                await self.members.annotate(UNSAID, json.dumps([asdict(note) for note in notes]))
                self._notes = list(notes)
        except TaskcellError as error:
            log.warning(_UNTOLD, reason=str(error))

    async def begin_to_leave(self) -> None:
        if self.claims is None:
            return
        try:
            await self.members.begin_to_leave()
            await self.members.look()  # one may have come this second, to take this one's place
        except TaskcellError as error:
            log.info("Other servers see later that this one ends.", reason=str(error))

    def lives(self, instance: str) -> bool:
        return self.members.may_answer(instance)

    @property
    def has_heirs(self) -> bool:
        return self.claims is not None and any(name != self.instance for name in self.members.able())

    async def hand_over(self) -> None:
        await self.members.end()

    async def leave(self, *, keep: bool) -> None:
        claims, self.claims = self.claims, None
        if self._running is not None:
            self._running.cancel_scope.cancel()
        self._own.leave(keep=False)
        with anyio.move_on_after(LEAVING_TIMEOUT):
            try:
                if claims is not None and keep:
                    await self.members.end()
                elif claims is not None:
                    self.opened.clear()
                    await claims.release(list(claims.own))
                    await self.members.remove(self.instance)
            except TaskcellError as error:
                log.info("Other servers see this one's end later.", reason=str(error))
        await self._api.aclose()

    # --- the others ----------------------------------------------------------------------------------------------

    def peers(self) -> Sequence[Peer]:
        return self.members.peers()

    async def peer(self, instance: str) -> Peer | None:
        return await self.members.found(instance)

    async def servers(self) -> Sequence[ServerRecord]:
        await self.members.look()
        found: dict[str, list[SandboxRecord]] = {name: [] for name in self.members.names()}
        for pod in await self._objects.listed("pods"):
            found.setdefault(owner_of(pod), []).extend(records_of(pod))
        return [
            ServerRecord(name, 0, self.members.is_alive(name), tuple(records), self._notes_of(name))
            for name, records in sorted(found.items())
        ]

    async def dead(self) -> Collection[str]:
        await self.members.look()
        return self.members.dead()

    async def bequeathed(self, chosen: Collection[str] | None = None) -> AsyncIterator[ServerRecord]:
        dead = await self.dead() if chosen is None else self.members.dead()
        for instance in dead if chosen is None else [name for name in chosen if name in dead]:
            if not await self.members.declare_dead(instance):
                continue
            won: list[SandboxRecord] = []
            for pod in await self._objects.listed("pods", is_fresh=False, instance=instance):
                won += await self._taken(pod, instance)
            if self.claims is not None:
                await self.claims.seize_opened(instance, self._leads)
            notes = () if instance in self._heard else self._notes_of(instance)
            self._heard.add(instance)
            mine = tuple(note for note in notes if self._leads(TaskKey(note.principal, note.task)))
            if won or mine:
                yield ServerRecord(instance, 0, False, tuple(won), mine)
            await self._bury(instance)

    def _leads(self, task: TaskKey) -> bool:
        assert self.claims is not None
        return task in self.claims.own or self.members.lead(task) == self.instance

    async def _taken(self, pod: Mapping[str, Any], dead: str) -> Sequence[SandboxRecord]:
        """What this server gets of a dead one's pod. One that no task has goes: it is whoever's is named first."""
        records = records_of(pod)
        task = next((one.key for one in records if one.task), None)
        if task is None:
            if self.members.lead_of(str(pod["metadata"]["uid"])) == self.instance:
                await self._pods.delete_unused(pod, dead)
            return ()
        assert self.claims is not None
        if not self._leads(task) or not await self.claims.seize(task, dead) or not await self._pods.take(pod, dead):
            return ()
        self.records.take(records)
        return records

    async def _bury(self, instance: str) -> None:
        """Remove a dead server's Lease when it answers nothing more, nothing of it is left, and all have seen that."""
        looks = self._looks[instance] = self._looks.get(instance, 0) + 1
        if looks < LOOKS or self.members.may_answer(instance) or self.members.lead_of(instance) != self.instance:
            return
        if await self._objects.listed("pods", instance=instance):
            return
        if self.claims is not None and await self.claims.forget(instance):
            await self.members.remove(instance)
            del self._looks[instance]

    async def elsewhere(self) -> frozenset[TaskKey]:
        return frozenset()  # a call for such a task is handed on

    def _notes_of(self, instance: str) -> tuple[NoteRecord, ...]:
        return notes_in(self.members.notes(instance), instance)
