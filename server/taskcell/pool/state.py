"""The pool's state and its decisions: synchronous, without I/O, so that no decision can be cut in two.

Each decision changes the state at once and returns the steps that the executor carries out afterwards.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator

import anyio

from taskcell.errors import TaskcellError
from taskcell.policy.policy import AuthorizedProfile
from taskcell.pool.bounds import Bounds, make_room
from taskcell.pool.ending_notes import CHANGED, PUT_BACK, Endings, how_ended
from taskcell.pool.slot import NOBODY, Lease, Slot, SlotKey, SlotState, Step
from taskcell.pool.waiting import Waiting
from taskcell.pool.warm import missing_warm, note_used, outdated_warm, try_last, warm_for
from taskcell.sandbox.sandbox import Sandbox


class Slots:
    """Every slot of the pool. A key has at most one slot that calls can lease; a slot for one call is leased once."""

    def __init__(self, bounds: Bounds | None = None) -> None:
        self.bounds = bounds or Bounds()
        self._slots: dict[SlotKey, Slot] = {}
        self._waiting = Waiting()
        self._used: dict[str, AuthorizedProfile] = {}
        self.endings = Endings()
        self._numbers = itertools.count(1)

    def __iter__(self) -> Iterator[Slot]:
        return iter(list(self._slots.values()))

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def waiting(self) -> int:
        """How many calls wait for a place."""
        return len(self._waiting)

    # --- leases --------------------------------------------------------------------------------------------------

    def lease(self, key: SlotKey, profile: AuthorizedProfile, *, changes: bool = True) -> Lease:
        """A claim on the key's slot, granted at once when that slot can be used. Otherwise `assign` decides."""
        lease = Lease(key, profile, next(self._numbers), changes=changes)
        note_used(self._used, profile, key[0].principal)
        current = self._slots.get(key)
        if current is not None and current.fits(profile):
            self._grant(lease, current)
        else:
            self._waiting.add(lease)
        return lease

    def hold(self, slot: Slot, *, serves: bool = False) -> Lease:
        """A claim on this very slot, for what runs in it already."""
        lease = Lease(slot.shared_key, slot.profile, next(self._numbers), serves=serves)
        self._grant(lease, slot)
        return lease

    def assign(self, now: float) -> list[Step]:
        """Grant the waiting leases that there is room for, in turn."""
        stuck: set[SlotKey] = set()
        return list(iter(lambda: self._place_next(stuck, now), None))

    def _place_next(self, stuck: set[SlotKey], now: float) -> Step | None:
        """Place the first call that can be; the keys of those before it are added to `stuck`."""
        held, full = {slot.task for slot in self}, set[object]()
        for turn in self._waiting.in_turn(self._slots.values(), self.bounds):
            # A principal's tasks without a sandbox are alike: where one finds no room, none does.
            alike = turn.key if turn.key[0] in held else (turn.key[0].principal, id(turn.profile))
            if turn.key not in stuck and alike not in full:
                if (step := self._place(turn, now)) is not None:
                    self._join_others(turn, step.slot)
                    return step
                stuck.add(turn.key)
                full.add(alike)
        return None

    def _join_others(self, lease: Lease, slot: Slot) -> None:
        """Grant the slot to every call that waits for it: many calls for one new task make one sandbox."""
        self._waiting.remove(lease)
        if slot.is_for_one_call:
            return
        for other in [other for other in self._waiting.of(lease.key) if slot.fits(other.profile)]:
            self._waiting.remove(other)
            self._grant(other, slot)

    def _grant(self, lease: Lease, slot: Slot) -> None:
        lease.changes = lease.changes or slot.is_busy
        slot.leases, slot.servers = slot.leases + 1, slot.servers + lease.serves
        if slot.is_for_one_call:
            self._move(slot, (lease.key[0], f"{lease.key[1]}#{next(self._numbers)}"))
        lease.slot = slot
        if lease.granted is not None:
            lease.granted.set()

    def _move(self, slot: Slot, key: SlotKey) -> None:
        del self._slots[slot.key]
        slot.key = key
        self._slots[key] = slot

    def _place(self, lease: Lease, now: float) -> Step | None:
        """Find or make the lease's slot; None when there is no room for it now."""
        current = self._slots.get(lease.key)
        if current is not None:
            step = Step(current) if current.fits(lease.profile) else self._succeed(current, lease.profile, now)
        else:
            warm = warm_for(self._slots.values(), lease)
            victims = make_room(list(self), self.bounds, lease.key[0], now, needs_more=warm is None)
            if victims is None:
                return None
            evicted = tuple(self._out(victims, "was closed to make room for another task's"))
            self.endings.tell_evicted(lease.key[0], evicted)
            step = self._take_warm(warm, lease, evicted, now) if warm else self._new(lease, evicted, now)
        self._grant(lease, step.slot)
        return step

    def _new(self, lease: Lease, evicted: tuple[Slot, ...], now: float) -> Step:
        slot = Slot(lease.key, lease.profile, created=now, idle_since=now, ended=self.endings.take(lease.key))
        self._slots[lease.key] = slot
        return Step(slot, create=True, evicted=evicted)

    def withdraw(self, lease: Lease, now: float) -> list[Step]:
        """Take a lease back, granted or not: its call has ended, or gave up waiting."""
        steps: list[Step] = []
        if lease.slot is None:
            self._waiting.remove(lease)
        else:
            lease.slot.servers -= lease.serves
            steps += filter(None, [self._release(lease.slot, now, changes=lease.changes)])
        return steps + self.assign(now) if self._waiting else steps

    def _release(self, slot: Slot, now: float, *, changes: bool) -> Step | None:
        """End one lease. A sandbox that must not be used again is replaced now, not at the next call."""
        slot.leases -= 1
        slot.idle_since, slot.changed = now, now if changes else slot.changed
        if slot.state in (SlotState.RETIRED, SlotState.CLOSED) and slot.leases == 0:
            slot.idle.set()
        if slot.is_for_one_call and self._slots.get(slot.key) is slot:
            return self._put_back(slot) if slot.state is SlotState.CREATING else self._spend(slot, now)
        doomed = slot.sandbox is not None and slot.sandbox.doomed is not None
        if self._slots.get(slot.key) is slot and slot.state is SlotState.READY and doomed:
            return self._succeed(slot, slot.profile, now)
        return None

    def _put_back(self, slot: Slot) -> Step | None:
        """Leave a slot to the next call: its own call was cancelled before it was ready, so nothing ran in it."""
        if slot.shared_key not in self._slots:
            self._move(slot, slot.shared_key)
            return None
        self._retire(slot)
        return Step(self._slots[slot.shared_key], retired=slot)

    def _spend(self, slot: Slot, now: float) -> Step:
        """Retire a slot that had its one call. A successor is made if no other slot holds the workspace."""
        ready = (other for other in self if other.task == slot.task and other.state is SlotState.READY)
        holder = next((other for other in ready if other is not slot and other.usable), None)
        holder = holder or self._slots.get(slot.shared_key)
        if holder is None:
            return self._succeed(slot, slot.profile, now, reset=True)
        self._retire(slot)
        return Step(holder, retired=slot)

    def _retire(self, slot: Slot) -> None:
        del self._slots[slot.key]
        slot.state = SlotState.RETIRED

    def _out(self, slots: Iterable[Slot], ended: str) -> list[Slot]:
        chosen = list(slots)
        for slot in chosen:
            self._retire(slot)
            if not slot.is_warm:
                self.endings.remember(slot.shared_key, ended)
                self.endings.tell_ended(slot)
        return chosen

    def take_idle(self, now: float, ttl: float) -> list[Slot]:
        """Take out the slots that had neither a call nor a process for `ttl` seconds, and warm ones that died."""
        tired = [slot for slot in self if self._is_tired(slot, now - ttl)]
        return self._out(tired, f"was closed after {ttl:g} s without a call or a process")

    @staticmethod
    def _is_tired(slot: Slot, since: float) -> bool:
        if slot.state is not SlotState.READY or slot.is_busy:
            return False
        return not slot.usable if slot.is_warm else slot.quiet_since <= since

    # --- warm ----------------------------------------------------------------------------------------------------

    def next_warm(self, now: float) -> list[Step]:
        """Make one warm sandbox when one is missing, or drop outdated ones."""
        outdated = self._out(outdated_warm(list(self), self._used), "")
        if outdated:
            return [Step(outdated[0], evicted=tuple(outdated))]
        profile = None if self._waiting else missing_warm(self._slots.values(), self._used, self.bounds)
        if profile is None:
            return []
        key = NOBODY, f"{profile.name}#{next(self._numbers)}"
        slot = self._slots[key] = Slot(key, profile, created=now, idle_since=now)
        return [Step(slot, create=True)]

    def _take_warm(self, slot: Slot, lease: Lease, evicted: tuple[Slot, ...], now: float) -> Step:
        """Give a warm slot to the lease's task; a sandbox that is ready already is checked first."""
        self._move(slot, lease.key)
        slot.idle_since, slot.changed, slot.ended = now, now, self.endings.take(lease.key)
        if slot.state is SlotState.CREATING:
            return Step(slot, evicted=evicted)
        slot.state, slot.settled = SlotState.CREATING, anyio.Event()
        return Step(slot, check=True, evicted=evicted)

    def inherit(self, slot: Slot) -> None:
        """Add a slot for an earlier server's sandbox that is being adopted; the bounds do not count here."""
        self._slots.setdefault(slot.key, slot)

    # --- ends ----------------------------------------------------------------------------------------------------

    def replace(self, chosen: Callable[[Slot], bool], now: float) -> list[Step]:
        """A successor for each chosen slot that is ready; what runs in the old ones is killed."""
        old = [slot for slot in self if chosen(slot) and slot.state is SlotState.READY]
        return [
            self._spend(slot, now)
            if slot.key != slot.shared_key
            else self._succeed(slot, slot.profile, now, reset=True)
            for slot in old
        ]

    def _succeed(self, old: Slot, profile: AuthorizedProfile, now: float, *, reset: bool = False) -> Step:
        slot = Slot(old.shared_key, profile, created=now, idle_since=now, replaces=old)
        if old.sandbox is None:
            # It is being made, or adopted, and no answer has said yet how the one before it ended.
            slot.ended = old.ended if old.inherited is None else CHANGED
        elif not old.sandbox.usable:
            self.endings.tell_ended(old)
            slot.ended = f"had died ({old.sandbox.doomed or old.sandbox.channel.lost_reason or 'it ended'})"
        elif not reset:
            slot.ended = CHANGED
        step = Step(slot, create=True, retired=old, at_once=reset or not old.usable)
        self._retire(old)
        self._slots[slot.key] = slot
        return step

    def ready(self, slot: Slot, sandbox: Sandbox, *, kept_files: bool = False, files: str = "") -> None:
        """The slot's sandbox can be used. The arguments are those of `how_ended`."""
        slot.sandbox = sandbox
        if slot.state is SlotState.CREATING:
            slot.state = SlotState.READY
        slot.replaces = slot.inherited = None
        if slot.ended:
            slot.notes.append(how_ended(slot.ended, kept_files=kept_files, files=files))
        elif files:
            slot.notes.append(PUT_BACK.format(files))
        slot.ended = ""
        slot.settled.set()

    def failed(self, slot: Slot, error: TaskcellError) -> None:
        """A creation has failed: the next lease tries again with a new slot.

        The slot that it was to succeed is put back if it still holds the task's files, for they live in it alone.
        """
        slot.error, slot.state = error, SlotState.FAILED
        try_last(self._used, slot.profile)
        old, slot.replaces = slot.replaces, None
        if self._slots.get(slot.key) is slot:
            del self._slots[slot.key]
            if slot.ended and slot.ended != CHANGED:
                self.endings.remember(slot.shared_key, slot.ended)
            if old is not None and old.holds_files:
                self._put_in_place(old)
        elif (heir := self.heir(slot)) is not None:
            heir.replaces = old
        slot.settled.set()

    def _put_in_place(self, old: Slot) -> None:
        """Put back a slot that got no successor, or leave it to the slot that has its key by now."""
        current = self._slots.get(old.key)
        if current is None:  # a warm sandbox may still be checked for its task
            old.state = SlotState.READY if old.settled.is_set() else SlotState.CREATING
            self._slots[old.key] = old
        elif current.replaces is None and current.state is SlotState.CREATING:
            current.replaces = old

    def heir(self, old: Slot) -> Slot | None:
        """The slot that is to succeed `old`."""
        return next((slot for slot in self if slot.replaces is old), None)

    def take(self, chosen: Callable[[Slot], bool]) -> list[Slot]:
        """Take slots out, to be closed: from now on a lease makes a new slot."""
        taken = [slot for slot in self if chosen(slot)]
        for slot in taken:
            self._retire(slot)
        return taken

    def take_notes(self, slot: Slot) -> list[str]:
        """Notes for the next answer; each is returned once."""
        notes, slot.notes = slot.notes, []
        return [*notes, *self.endings.take_told(slot.task)]
