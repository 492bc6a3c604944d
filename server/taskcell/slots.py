"""The pool's state and its decisions: synchronous, without I/O, so that no decision can be cut in two."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum

import anyio

from taskcell.errors import TaskcellError
from taskcell.model import Reuse, TaskKey
from taskcell.policy import AuthorizedProfile
from taskcell.sandbox import Sandbox, SandboxState

SlotKey = tuple[TaskKey, str]


class SlotState(Enum):
    CREATING = "creating"
    READY = "ready"
    FAILED = "failed"
    RETIRED = "retired"
    CLOSED = "closed"


@dataclass(slots=True, eq=False)
class Slot:
    """A place in the pool: (task, profile), and the sandbox that is or will be in it.

    A sandbox for one call has a key of its own while that call has it, so that no other is given it.

    Arguments:
        workspace: name of the volume with the task's files.
        settled: set when the creation has succeeded or failed; `idle`: when the last lease of a retired slot ended.
        replaces: the slot that this one is to succeed, until it has.
    """

    key: SlotKey
    profile: AuthorizedProfile
    workspace: str
    created: float
    state: SlotState = SlotState.CREATING
    sandbox: Sandbox | None = None
    error: TaskcellError | None = None
    settled: anyio.Event = field(default_factory=anyio.Event)
    idle: anyio.Event = field(default_factory=anyio.Event)
    replaces: Slot | None = None
    leases: int = 0
    idle_since: float = 0.0
    notes: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        task, profile = self.key
        return f"<Slot {task.digest}/{profile} {self.state.value}, {self.leases} leases>"

    @property
    def shared_key(self) -> SlotKey:
        """Where calls look for it: the key of every slot but one that a single call has."""
        return self.key[0], self.profile.profile.name

    @property
    def is_for_one_call(self) -> bool:
        return self.profile.profile.reuse is Reuse.CALL

    @property
    def holds_files(self) -> bool:
        """Its container runs, and with it the workspace lives."""
        return self.sandbox is not None and self.sandbox.state is SandboxState.READY and self.sandbox.channel.alive

    @property
    def usable(self) -> bool:
        """It may be leased: it is being made, or its sandbox is in order."""
        if self.state is SlotState.CREATING:
            return True
        return self.state is SlotState.READY and self.sandbox is not None and self.sandbox.usable


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now.

    Arguments:
        create: start the slot's sandbox.
        retired: to be closed once `slot` is settled, for the successor holds the workspace by then.
        at_once: not to wait for the calls that still run in the retired one.
    """

    slot: Slot
    create: bool = False
    retired: Slot | None = None
    at_once: bool = False


class Slots:
    """Every slot of the pool; at most one for a key can be leased, and one for a single call by that call alone."""

    def __init__(self) -> None:
        self._slots: dict[SlotKey, Slot] = {}
        self._calls = 0

    def __iter__(self) -> Iterator[Slot]:
        return iter(list(self._slots.values()))

    def lease(self, key: SlotKey, profile: AuthorizedProfile, workspace: str, now: float) -> Decision:
        """Count a lease on the key's slot; make a new slot where there is none that can be used."""
        current = self._slots.get(key)
        if current is not None and current.usable and current.profile == profile:
            decision = Decision(current)
        else:
            decision = self._succeed(key, profile, workspace, current, now)
        slot = decision.slot
        slot.leases += 1
        if slot.is_for_one_call:
            self._calls += 1
            self._move(slot, (key[0], f"{key[1]}#{self._calls}"))
        return decision

    def _move(self, slot: Slot, key: SlotKey) -> None:
        del self._slots[slot.key]
        slot.key = key
        self._slots[key] = slot

    def release(self, slot: Slot, now: float) -> Decision | None:
        """Take a lease back. A sandbox that must not be used again is replaced at once, not at the next call."""
        slot.leases -= 1
        slot.idle_since = now
        if slot.state is SlotState.RETIRED and slot.leases == 0:
            slot.idle.set()
        if slot.is_for_one_call and self._slots.get(slot.key) is slot:
            return self._put_back(slot) if slot.state is SlotState.CREATING else self._spend(slot, now)
        doomed = slot.sandbox is not None and slot.sandbox.doomed is not None
        if self._slots.get(slot.key) is slot and slot.state is SlotState.READY and doomed:
            return self._succeed(slot.key, slot.profile, slot.workspace, slot, now)
        return None

    def _put_back(self, slot: Slot) -> Decision | None:
        """Its call was cancelled before it was ready: nothing ran in it, so the next call may have it."""
        if slot.shared_key not in self._slots:
            self._move(slot, slot.shared_key)
            return None
        del self._slots[slot.key]
        slot.state = SlotState.RETIRED
        return Decision(self._slots[slot.shared_key], retired=slot)

    def _spend(self, slot: Slot, now: float) -> Decision:
        """Retire a slot that had its one call. Where no other slot holds the workspace, the next call's one is made."""
        del self._slots[slot.key]
        ready = (other for other in self if other.key[0] == slot.key[0] and other.state is SlotState.READY)
        holder = next((other for other in ready if other.usable), self._slots.get(slot.shared_key))
        if holder is None:
            return self._succeed(slot.shared_key, slot.profile, slot.workspace, slot, now, reset=True)
        slot.state = SlotState.RETIRED
        return Decision(holder, retired=slot)

    def replace(self, chosen: Callable[[Slot], bool], now: float) -> list[Decision]:
        """A successor for each chosen slot that is not already being made; what runs in the old ones is killed."""
        old = [slot for slot in self if chosen(slot) and slot.state is SlotState.READY]
        return [
            self._spend(slot, now)
            if slot.key != slot.shared_key
            else self._succeed(slot.key, slot.profile, slot.workspace, slot, now, reset=True)
            for slot in old
        ]

    def _succeed(
        self,
        key: SlotKey,
        profile: AuthorizedProfile,
        workspace: str,
        old: Slot | None,
        now: float,
        *,
        reset: bool = False,
    ) -> Decision:
        slot = Slot(key, profile, workspace, created=now, idle_since=now, replaces=old)
        at_once = reset or (old is not None and not old.usable)
        if old is not None:
            if old.sandbox is not None and not (reset and old.usable):
                slot.notes.append(self._why_replaced(old, old.sandbox))
            old.state = SlotState.RETIRED
        self._slots[key] = slot
        return Decision(slot, create=True, retired=old, at_once=at_once)

    def _why_replaced(self, old: Slot, sandbox: Sandbox) -> str:
        if sandbox.usable:
            return "The sandbox was replaced because its configuration changed; the workspace is the same."
        reason = sandbox.doomed or sandbox.channel.lost_reason or "it ended"
        held = sandbox.channel.alive or any(
            other.key[0] == old.key[0] and other.usable and other.sandbox is not None for other in self
        )
        files = (
            "the files in the workspace are still there" if held else "the files that were in the workspace are lost"
        )
        return f"The task's sandbox had died ({reason}) and was replaced by a fresh one; {files}."

    def ready(self, slot: Slot, sandbox: Sandbox) -> None:
        slot.sandbox = sandbox
        if slot.state is SlotState.CREATING:
            slot.state = SlotState.READY
        slot.replaces = None
        slot.settled.set()

    def failed(self, slot: Slot, error: TaskcellError) -> None:
        """Nothing is kept of a failed creation: the next lease tries afresh.

        What it was to succeed is put back where it still holds the task's files, for they live in it alone.
        """
        slot.error, slot.state = error, SlotState.FAILED
        old, slot.replaces = slot.replaces, None
        if self._slots.get(slot.key) is slot:
            del self._slots[slot.key]
            if old is not None and old.holds_files:
                old.state = SlotState.READY
                self._slots[old.key] = old
        elif (heir := self.heir(slot)) is not None:
            heir.replaces = old
        slot.settled.set()

    def heir(self, old: Slot) -> Slot | None:
        """The slot that is to succeed another."""
        return next((slot for slot in self if slot.replaces is old), None)

    def take(self, chosen: Callable[[Slot], bool]) -> list[Slot]:
        """Take slots out, to be closed: from now on a lease makes a new one."""
        taken = [slot for slot in self if chosen(slot)]
        for slot in taken:
            del self._slots[slot.key]
            slot.state = SlotState.RETIRED
        return taken

    def closed(self, slot: Slot) -> None:
        slot.state = SlotState.CLOSED

    def take_notes(self, slot: Slot) -> list[str]:
        """Notes for the next answer; each is told once."""
        notes, slot.notes = slot.notes, []
        return notes
