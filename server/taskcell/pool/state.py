"""The pool's state and its decisions: synchronous, without I/O, so that no decision can be cut in two."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator

import anyio

from taskcell.errors import TaskcellError
from taskcell.model import TaskKey
from taskcell.policy.policy import AuthorizedProfile
from taskcell.pool.bounds import Bounds, make_room, next_turn
from taskcell.pool.ending_notes import CHANGED, Endings, how_ended
from taskcell.pool.slot import NOBODY, Decision, Lease, Slot, SlotKey, SlotState
from taskcell.pool.warm import missing_warm, outdated_warm, warm_for
from taskcell.sandbox.sandbox import Sandbox


class Slots:
    """Every slot of the pool; at most one for a key can be leased, and one for a single call by that call alone."""

    def __init__(self, bounds: Bounds | None = None) -> None:
        self.bounds = bounds or Bounds()
        self._slots: dict[SlotKey, Slot] = {}
        self._waiting: list[Lease] = []
        self._used: dict[str, AuthorizedProfile] = {}
        self._endings = Endings()
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

    def lease(self, key: SlotKey, profile: AuthorizedProfile) -> Lease:
        """A claim on the key's slot, granted at once where it can be used. Else `assign` decides."""
        lease = Lease(key, profile, next(self._numbers))
        self._used[key[1]] = profile
        current = self._slots.get(key)
        if current is not None and current.fits(profile):
            self._grant(lease, current)
        else:
            self._waiting.append(lease)
        return lease

    def hold(self, slot: Slot) -> Lease:
        """A claim on this very slot, of what runs there already."""
        lease = Lease(slot.shared_key, slot.profile, next(self._numbers))
        self._grant(lease, slot)
        return lease

    def assign(self, now: float) -> list[Decision]:
        """Grant what can be granted of the waiting leases; where there is room for some only, in turn."""
        decisions: list[Decision] = []
        stuck: set[SlotKey] = set()
        while self._waiting:
            turn = next_turn((lease for lease in self._waiting if lease.key not in stuck), self._slots.values())
            if turn is None:
                break
            decision = self._place(turn, now)
            if decision is None:
                stuck.add(turn.key)
                continue
            decisions.append(decision)
            self._join_others(turn, decision.slot)
        return decisions

    def _join_others(self, lease: Lease, slot: Slot) -> None:
        """A herd of calls for one new task waits for one creation."""
        self._waiting.remove(lease)
        if slot.is_for_one_call:
            return
        for other in [other for other in self._waiting if other.key == lease.key and slot.fits(other.profile)]:
            self._waiting.remove(other)
            self._grant(other, slot)

    def _grant(self, lease: Lease, slot: Slot) -> None:
        slot.leases += 1
        if slot.is_for_one_call:
            self._move(slot, (lease.key[0], f"{lease.key[1]}#{next(self._numbers)}"))
        lease.slot = slot
        if lease.granted is not None:
            lease.granted.set()

    def _move(self, slot: Slot, key: SlotKey) -> None:
        del self._slots[slot.key]
        slot.key = key
        self._slots[key] = slot

    def _place(self, lease: Lease, now: float) -> Decision | None:
        """Find or make the lease's slot; None: there is no room for it now."""
        current = self._slots.get(lease.key)
        if current is not None:
            fits = current.fits(lease.profile)
            decision = Decision(current) if fits else self._succeed(current, lease.profile, now)
        else:
            warm = warm_for(self._slots.values(), lease)
            victims = make_room(list(self), self.bounds, lease.key[0], needs_more=warm is None)
            if victims is None:
                return None
            evicted = tuple(self._out(victims, "was closed to make room for another task's"))
            decision = self._take_warm(warm, lease, evicted, now) if warm else self._new(lease, evicted, now)
        self._grant(lease, decision.slot)
        return decision

    def _new(self, lease: Lease, evicted: tuple[Slot, ...], now: float) -> Decision:
        slot = Slot(lease.key, lease.profile, created=now, idle_since=now, ended=self._endings.take(lease.key))
        self._slots[lease.key] = slot
        return Decision(slot, create=True, evicted=evicted)

    def withdraw(self, lease: Lease, now: float) -> list[Decision]:
        """Take a lease back, granted or not: its call has ended, or waits no more."""
        decisions = []
        if lease.slot is None:
            self._waiting.remove(lease)
        elif (decision := self._release(lease.slot, now)) is not None:
            decisions.append(decision)
        return decisions + self.assign(now) if self._waiting else decisions

    def _release(self, slot: Slot, now: float) -> Decision | None:
        """A sandbox that must not be used again is replaced at once, not at the next call."""
        slot.leases -= 1
        slot.idle_since = now
        if slot.state in (SlotState.RETIRED, SlotState.CLOSED) and slot.leases == 0:
            slot.idle.set()
        if slot.is_for_one_call and self._slots.get(slot.key) is slot:
            return self._put_back(slot) if slot.state is SlotState.CREATING else self._spend(slot, now)
        doomed = slot.sandbox is not None and slot.sandbox.doomed is not None
        if self._slots.get(slot.key) is slot and slot.state is SlotState.READY and doomed:
            return self._succeed(slot, slot.profile, now)
        return None

    def _put_back(self, slot: Slot) -> Decision | None:
        """Its call was cancelled before it was ready: nothing ran in it, so the next call may have it."""
        if slot.shared_key not in self._slots:
            self._move(slot, slot.shared_key)
            return None
        self._retire(slot)
        return Decision(self._slots[slot.shared_key], retired=slot)

    def _spend(self, slot: Slot, now: float) -> Decision:
        """Retire a slot that had its one call. Where no other slot holds the workspace, the next call's one is made."""
        ready = (other for other in self if other.task == slot.task and other.state is SlotState.READY)
        holder = next((other for other in ready if other is not slot and other.usable), None)
        holder = holder or self._slots.get(slot.shared_key)
        if holder is None:
            return self._succeed(slot, slot.profile, now, reset=True)
        self._retire(slot)
        return Decision(holder, retired=slot)

    # --- leaving -------------------------------------------------------------------------------------------------

    def _retire(self, slot: Slot) -> None:
        del self._slots[slot.key]
        slot.state = SlotState.RETIRED

    def _out(self, slots: Iterable[Slot], ended: str) -> list[Slot]:
        chosen = list(slots)
        for slot in chosen:
            self._retire(slot)
            if not slot.is_warm:
                self._endings.remember(slot.shared_key, ended)
        return chosen

    def take_idle(self, now: float, ttl: float) -> list[Slot]:
        """Take out the slots that had neither a call nor a process for `ttl` seconds; and warm ones that died."""
        tired = [slot for slot in self if self._is_tired(slot, now - ttl)]
        return self._out(tired, f"was closed after {ttl:g} s without a call or a process")

    @staticmethod
    def _is_tired(slot: Slot, since: float) -> bool:
        if slot.state is not SlotState.READY or slot.is_busy:
            return False
        return not slot.usable if slot.is_warm else slot.quiet_since <= since

    # --- warm ----------------------------------------------------------------------------------------------------

    def next_warm(self, now: float) -> list[Decision]:
        """What to do for the ready sandboxes: make one, where one is missing, or drop outdated ones."""
        outdated = self._out(outdated_warm(list(self), self._used), "")
        if outdated:
            return [Decision(outdated[0], evicted=tuple(outdated))]
        profile = None if self._waiting else missing_warm(self._slots.values(), self._used, self.bounds)
        if profile is None:
            return []
        key = NOBODY, f"{profile.profile.name}#{next(self._numbers)}"
        slot = self._slots[key] = Slot(key, profile, created=now, idle_since=now)
        return [Decision(slot, create=True)]

    def _take_warm(self, slot: Slot, lease: Lease, evicted: tuple[Slot, ...], now: float) -> Decision:
        """From now on it is the task's; a sandbox that is ready is looked at first."""
        self._move(slot, lease.key)
        slot.idle_since, slot.ended = now, self._endings.take(lease.key)
        if slot.state is SlotState.CREATING:
            return Decision(slot, evicted=evicted)
        slot.state, slot.settled = SlotState.CREATING, anyio.Event()
        return Decision(slot, check=True, evicted=evicted)

    # --- inheritance ---------------------------------------------------------------------------------------------

    def inherit(self, slot: Slot) -> None:
        """Give a place to the sandbox of an earlier server, which is being taken up; it may be over the bounds."""
        self._slots.setdefault(slot.key, slot)

    # --- ends ----------------------------------------------------------------------------------------------------

    def replace(self, chosen: Callable[[Slot], bool], now: float) -> list[Decision]:
        """A successor for each chosen slot that is not already being made; what runs in the old ones is killed."""
        old = [slot for slot in self if chosen(slot) and slot.state is SlotState.READY]
        return [
            self._spend(slot, now)
            if slot.key != slot.shared_key
            else self._succeed(slot, slot.profile, now, reset=True)
            for slot in old
        ]

    def _succeed(self, old: Slot, profile: AuthorizedProfile, now: float, *, reset: bool = False) -> Decision:
        slot = Slot(old.shared_key, profile, created=now, idle_since=now, replaces=old)
        if old.sandbox is None:
            # It is being made, or taken up, and nobody was told yet.
            slot.ended = old.ended if old.inherited is None else CHANGED
        elif not old.sandbox.usable:
            slot.ended = f"had died ({old.sandbox.doomed or old.sandbox.channel.lost_reason or 'it ended'})"
        elif not reset:
            slot.ended = CHANGED
        at_once = reset or not old.usable
        self._retire(old)
        self._slots[slot.key] = slot
        return Decision(slot, create=True, retired=old, at_once=at_once)

    def ready(self, slot: Slot, sandbox: Sandbox, *, kept_files: bool = False) -> None:
        """The slot's sandbox can be used. `kept_files`: its workspace is the one that the task had before."""
        slot.sandbox = sandbox
        if slot.state is SlotState.CREATING:
            slot.state = SlotState.READY
        slot.replaces = slot.inherited = None
        if slot.ended:
            slot.notes.append(how_ended(slot.ended, kept_files=kept_files))
            slot.ended = ""
        slot.settled.set()

    def failed(self, slot: Slot, error: TaskcellError) -> None:
        """Nothing is kept of a failed creation: the next lease tries afresh.

        What it was to succeed is put back where it still holds the task's files, for they live in it alone.
        """
        slot.error, slot.state = error, SlotState.FAILED
        old, slot.replaces = slot.replaces, None
        if self._slots.get(slot.key) is slot:
            del self._slots[slot.key]
            if slot.ended and slot.ended != CHANGED:
                self._endings.remember(slot.shared_key, slot.ended)
            if old is not None and old.holds_files:
                self._put_in_place(old)
        elif (heir := self.heir(slot)) is not None:
            heir.replaces = old
        slot.settled.set()

    def _put_in_place(self, old: Slot) -> None:
        """Have a slot back that could not be succeeded, or leave it to who has its key by now."""
        current = self._slots.get(old.key)
        if current is None:
            old.state = SlotState.READY
            self._slots[old.key] = old
        elif current.replaces is None and current.state is SlotState.CREATING:
            current.replaces = old

    def heir(self, old: Slot) -> Slot | None:
        """The slot that is to succeed another."""
        return next((slot for slot in self if slot.replaces is old), None)

    def take(self, chosen: Callable[[Slot], bool]) -> list[Slot]:
        """Take slots out, to be closed: from now on a lease makes a new one."""
        taken = [slot for slot in self if chosen(slot)]
        for slot in taken:
            self._retire(slot)
        return taken

    def forget(self, task: TaskKey) -> None:
        """The task was closed on purpose: nobody need be told how its sandboxes ended."""
        self._endings.forget(task)

    def take_notes(self, slot: Slot) -> list[str]:
        """Notes for the next answer; each is told once."""
        notes, slot.notes = slot.notes, []
        return notes
